//! What of the backend's would take the gateway out of the path (G-9): credentials and addresses of the connection.
//!
//! A password is for the leg between us and the backend: it is taken here and used from the next connection on. Where
//! the EVSE connects, and how, is the site's: such a change is refused.

use serde_json::{Value, json};

use super::super::{Secret, Version, access::unhex};

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guarded {
    /// It is the EVSE's own.
    Pass,
    /// The password of the backend's leg.
    Password(Secret),
    /// It would move the EVSE away.
    Refused,
}

fn leads_away(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    value.starts_with("ws://") || value.starts_with("wss://")
}

/// `ChangeConfiguration` of 1.6.
pub(super) fn configuration(payload: &str) -> Guarded {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let (key, value) =
        (payload["key"].as_str().unwrap_or_default(), payload["value"].as_str().unwrap_or_default());
    if key.eq_ignore_ascii_case("AuthorizationKey") {
        return password(value);
    }
    if key.eq_ignore_ascii_case("SecurityProfile") || leads_away(value) {
        return Guarded::Refused;
    }
    Guarded::Pass
}

fn password(value: &str) -> Guarded {
    if !(16..=40).contains(&value.len()) {
        return Guarded::Refused;
    }
    Guarded::Password(Secret::given(unhex(value).unwrap_or_else(|| value.as_bytes().to_vec())))
}

/// One entry of `SetVariables` of 2.x.
fn variable(entry: &Value) -> Guarded {
    let value = entry["attributeValue"].as_str().unwrap_or_default();
    match entry["variable"]["name"].as_str().unwrap_or_default() {
        "BasicAuthPassword" => {
            // A01: as it is, whatever it looks like.
            if (16..=40).contains(&value.len()) {
                Guarded::Password(Secret::given(value.into()))
            } else {
                Guarded::Refused
            }
        }
        "SecurityProfile" | "NetworkConfigurationPriority" | "Identity" => Guarded::Refused,
        _ if leads_away(value) => Guarded::Refused,
        _ => Guarded::Pass,
    }
}

/// `SetVariables` of 2.x: what the EVSE shall hear of it, and what is answered here.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Variables {
    pub(super) password: Option<Secret>,
    /// The results of those that are answered here, by their place.
    pub(super) own: Vec<(usize, Value)>,
    /// The payload for the EVSE, if some remain.
    pub(super) rest: Option<Value>,
}

/// Sorts a `SetVariables`; `None` if all of it is the EVSE's own.
pub(super) fn variables(payload: &str) -> Option<Variables> {
    let mut payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let list = payload["setVariableData"].as_array()?.clone();
    let mut sorted = Variables::default();
    let mut rest = Vec::new();
    for (at, entry) in list.into_iter().enumerate() {
        let status = match variable(&entry) {
            Guarded::Pass => {
                rest.push(entry);
                continue;
            }
            Guarded::Password(password) => {
                sorted.password = Some(password);
                "Accepted"
            }
            Guarded::Refused => "Rejected",
        };
        let mut result = json!({
            "attributeStatus": status,
            "component": entry["component"],
            "variable": entry["variable"],
        });
        if entry["attributeType"].is_string() {
            result["attributeType"] = entry["attributeType"].clone();
        }
        sorted.own.push((at, result));
    }
    if sorted.own.is_empty() {
        return None;
    }
    if !rest.is_empty() {
        payload["setVariableData"] = Value::Array(rest);
        sorted.rest = Some(payload);
    }
    Some(sorted)
}

/// The EVSE's answer with ours in their places.
pub(super) fn merged(answer: &str, own: &[(usize, Value)]) -> String {
    let mut answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let mut list = answer["setVariableResult"].as_array().cloned().unwrap_or_default();
    for (at, result) in own {
        list.insert((*at).min(list.len()), result.clone());
    }
    answer["setVariableResult"] = Value::Array(list);
    answer.to_string()
}

/// Whether an `InstallCertificate` brings the root of the backend. The EVSE finds its backend here, so that root is for
/// our leg, and whom that trusts is the site's (`backend.ca`).
pub(super) fn brings_backends_root(payload: &str) -> bool {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    // 1.6 security extension and 2.x.
    matches!(
        payload["certificateType"].as_str(),
        Some("CentralSystemRootCertificate" | "CSMSRootCertificate")
    )
}

/// The refusal of a `SetNetworkProfile`.
pub(super) fn network_profile_refused(version: Version) -> String {
    version.profile_refused("InvalidNetworkConf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_ours_and_an_address_is_refused() {
        for (key, value, expected) in [
            ("HeartbeatInterval", "60", Guarded::Pass),
            (
                "AuthorizationKey",
                "00ff0102030405060708090a0b0c0d0e0f101112",
                Guarded::Password(Secret::given(vec![
                    0, 255, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
                ])),
            ),
            (
                "AuthorizationKey",
                "a plain text password",
                Guarded::Password(Secret::given(b"a plain text password".to_vec())),
            ),
            ("AuthorizationKey", "short", Guarded::Refused),
            ("SecurityProfile", "0", Guarded::Refused),
            ("VendorBackend", "WSS://elsewhere/ocpp", Guarded::Refused),
        ] {
            let payload = json!({"key": key, "value": value}).to_string();
            assert_eq!(configuration(&payload), expected, "{key}");
        }
    }

    #[test]
    fn a_list_of_variables_is_taken_apart_and_put_together() {
        let entry = |component: &str, variable: &str, value: &str| json!({"component": {"name": component}, "variable": {"name": variable}, "attributeValue": value});
        let payload = json!({"setVariableData": [
            entry("OCPPCommCtrlr", "HeartbeatInterval", "60"),
            entry("SecurityCtrlr", "BasicAuthPassword", "0123456789abcdef"),
            entry("OCPPCommCtrlr", "NetworkConfigurationPriority", "1"),
            entry("AuthCtrlr", "Enabled", "true")]});
        let sorted = variables(&payload.to_string()).unwrap();
        assert_eq!(sorted.password, Some(Secret::given(b"0123456789abcdef".to_vec())));
        assert_eq!(sorted.rest.as_ref().unwrap()["setVariableData"].as_array().unwrap().len(), 2);
        let answer = json!({"setVariableResult": [{"attributeStatus": "Accepted"}, {"attributeStatus": "NotSupportedAttributeType"}]});
        let whole: Value = serde_json::from_str(&merged(&answer.to_string(), &sorted.own)).unwrap();
        let states: Vec<_> = whole["setVariableResult"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["attributeStatus"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["Accepted", "Accepted", "Rejected", "NotSupportedAttributeType"]);
        let plain = json!({"setVariableData": [entry("AuthCtrlr", "Enabled", "true")]});
        assert_eq!(variables(&plain.to_string()), None);
    }
}
