//! The configuration keys of a charge point that is played here (1.6 §9).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{charge::Habits, profiles};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// It is only shown.
    Nothing,
    /// A whole number in this range.
    Number(i64, i64),
    /// `true` or `false`.
    Truth,
    /// A list of measurands.
    Measurands,
}

/// Measurands that a device may have.
pub(super) const MEASURANDS: [&str; 3] =
    ["Energy.Active.Import.Register", "Power.Active.Import", "Current.Import"];

const KEYS: &[(&str, &str, Takes)] = &[
    ("AllowOfflineTxForUnknownId", "false", Takes::Nothing),
    ("AuthorizationCacheEnabled", "true", Takes::Nothing),
    ("AuthorizeRemoteTxRequests", "false", Takes::Truth),
    ("ClockAlignedDataInterval", "0", Takes::Number(0, 86_400)),
    ("ConnectionTimeOut", "120", Takes::Number(10, 3600)),
    ("ConnectorPhaseRotation", "NotApplicable", Takes::Nothing),
    ("GetConfigurationMaxKeys", "50", Takes::Nothing),
    ("HeartbeatInterval", "300", Takes::Number(10, 86_400)),
    ("LocalAuthorizeOffline", "true", Takes::Nothing),
    ("LocalPreAuthorize", "false", Takes::Nothing),
    ("MeterValuesAlignedData", "Energy.Active.Import.Register", Takes::Measurands),
    (
        "MeterValuesSampledData",
        "Energy.Active.Import.Register,Power.Active.Import,Current.Import",
        Takes::Measurands,
    ),
    ("MeterValueSampleInterval", "60", Takes::Number(0, 86_400)),
    ("NumberOfConnectors", "1", Takes::Nothing),
    ("ResetRetries", "0", Takes::Nothing),
    ("StopTransactionOnEVSideDisconnect", "true", Takes::Nothing),
    ("StopTransactionOnInvalidId", "true", Takes::Truth),
    ("StopTxnAlignedData", "", Takes::Nothing),
    ("StopTxnSampledData", "", Takes::Nothing),
    ("SupportedFeatureProfiles", "Core,LocalAuthListManagement,SmartCharging,RemoteTrigger", Takes::Nothing),
    ("TransactionMessageAttempts", "3", Takes::Nothing),
    ("TransactionMessageRetryInterval", "60", Takes::Nothing),
    ("UnlockConnectorOnEVSideDisconnect", "false", Takes::Nothing),
    ("LocalAuthListEnabled", "true", Takes::Nothing),
    ("LocalAuthListMaxLength", "20000", Takes::Nothing),
    ("SendLocalListMaxLength", "500", Takes::Nothing),
    ("ChargeProfileMaxStackLevel", "10", Takes::Nothing),
    ("ChargingScheduleAllowedChargingRateUnit", "Current,Power", Takes::Nothing),
    ("ChargingScheduleMaxPeriods", "100", Takes::Nothing),
    ("MaxChargingProfilesInstalled", "20", Takes::Nothing),
];

const _: () = assert!(profiles::MOST == 20 && profiles::MOST_LEVEL == 10 && profiles::MOST_PERIODS == 100);

/// What was changed.
pub(super) type Changed = BTreeMap<String, String>;

fn find(key: &str) -> Option<&'static (&'static str, &'static str, Takes)> {
    KEYS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(key))
}

/// The value of a key that is known.
pub(super) fn value<'a>(changed: &'a Changed, key: &str) -> &'a str {
    changed.get(key).map_or_else(|| find(key).map_or("", |(_, default, _)| default), String::as_str)
}

fn number(changed: &Changed, key: &str) -> u64 {
    value(changed, key).parse().unwrap_or_default()
}

/// A number of seconds; none for 0.
pub(super) fn span(changed: &Changed, key: &str) -> Option<Duration> {
    Some(number(changed, key)).filter(|s| *s > 0).map(Duration::from_secs)
}

/// ChangeConfiguration (§5.3): the status to answer.
pub(super) fn change(changed: &mut Changed, key: &str, new: &str) -> &'static str {
    let Some((name, _, takes)) = find(key) else { return "NotSupported" };
    let fits = match takes {
        Takes::Nothing => false,
        Takes::Number(least, most) => new.trim().parse().is_ok_and(|n: i64| (*least..=*most).contains(&n)),
        Takes::Truth => new.eq_ignore_ascii_case("true") || new.eq_ignore_ascii_case("false"),
        Takes::Measurands => new.split(',').all(|m| MEASURANDS.contains(&m.trim())),
    };
    if !fits {
        return "Rejected";
    }
    let new = match takes {
        Takes::Measurands => new.split(',').map(str::trim).collect::<Vec<_>>().join(","),
        _ => new.trim().to_lowercase(),
    };
    changed.insert((*name).to_owned(), new);
    "Accepted"
}

/// GetConfiguration.conf (§5.8).
pub(super) fn answer(changed: &Changed, asked: &Value) -> Value {
    let wanted: Vec<&str> = asked["key"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let show = |(name, _, takes): &(&str, &str, Takes)| json!({ "key": name, "readonly": *takes == Takes::Nothing, "value": value(changed, name) });
    let known: Vec<_> = if wanted.is_empty() {
        KEYS.iter().map(show).collect()
    } else {
        wanted.iter().filter_map(|key| find(key)).map(show).collect()
    };
    let unknown: Vec<_> = wanted.iter().filter(|key| find(key).is_none()).collect();
    json!({ "configurationKey": known, "unknownKey": unknown })
}

/// The habits that follow.
pub(super) fn habits(changed: &Changed, free: Option<String>, whole: bool) -> Habits {
    Habits {
        plug_within: Duration::from_secs(number(changed, "ConnectionTimeOut")),
        sample_every: span(changed, "MeterValueSampleInterval"),
        clock_every: span(changed, "ClockAlignedDataInterval"),
        free,
        whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_take_what_they_can() {
        let mut changed = Changed::new();
        for (key, new, status) in [
            ("MeterValueSampleInterval", "10", "Accepted"),
            ("metervaluesampleinterval", "12", "Accepted"),
            ("MeterValueSampleInterval", "-1", "Rejected"),
            ("MeterValueSampleInterval", "soon", "Rejected"),
            ("MeterValuesSampledData", "Power.Active.Import, Current.Import", "Accepted"),
            ("MeterValuesSampledData", "Temperature", "Rejected"),
            ("NumberOfConnectors", "2", "Rejected"),
            ("AuthorizeRemoteTxRequests", "True", "Accepted"),
            ("Colour", "red", "NotSupported"),
        ] {
            assert_eq!(change(&mut changed, key, new), status, "{key} {new}");
        }
        assert_eq!(span(&changed, "MeterValueSampleInterval"), Some(Duration::from_secs(12)));
        assert_eq!(value(&changed, "MeterValuesSampledData"), "Power.Active.Import,Current.Import");
        let some = answer(&changed, &json!({ "key": ["ConnectionTimeOut", "Colour"] }));
        assert_eq!(
            some["configurationKey"][0],
            json!({ "key": "ConnectionTimeOut", "readonly": false, "value": "120" })
        );
        assert_eq!(some["unknownKey"], json!(["Colour"]));
        assert_eq!(answer(&changed, &json!({}))["configurationKey"].as_array().unwrap().len(), KEYS.len());
    }
}
