//! The OCPP 1.6 messages that we act on, read leniently, and those that we originate, written strictly.
//!
//! In: payloads as peers send them: missing or surplus members, numbers in quotes, one object where a list belongs.
//! Out: what can be made of them. Invariant: reading never fails; what cannot be read is absent. A frame that is
//! relayed does not pass through here, only a copy of its meaning.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{site::event::ConnectorStatus, time::Wall, units::WattHours};

/// Reads a payload, or gives the empty message.
pub(crate) fn read<T: DeserializeOwned + Default>(payload: &str) -> T {
    // By way of a value: a member that comes twice then counts once instead of spoiling the rest.
    serde_json::from_str::<Value>(payload).and_then(serde_json::from_value).unwrap_or_default()
}

/// A whole number, in quotes or not.
pub(crate) fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(n) => n.as_i64().or_else(|| {
            let float = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15)?;
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            Some(float as i64)
        }),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    })
}

/// A text; numbers and truth values as their spelling.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(s) => s,
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        other => other.to_string(),
    })
}

/// A list, or its only element, or nothing.
pub(crate) fn many<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = match Value::deserialize(deserializer)? {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    Ok(list.into_iter().filter_map(|v| serde_json::from_value(v).ok()).collect())
}

pub(crate) fn one<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// §6.3 BootNotification.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BootNotification {
    #[serde(deserialize_with = "text")]
    pub(crate) charge_point_vendor: String,
    #[serde(deserialize_with = "text")]
    pub(crate) charge_point_model: String,
}

/// §6.4 BootNotification.conf, and every other answer that is a status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatusAnswer {
    #[serde(deserialize_with = "text")]
    pub(crate) status: String,
    #[serde(deserialize_with = "int")]
    pub(crate) interval: Option<i64>,
}

/// §6.1 Authorize.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Authorize {
    #[serde(deserialize_with = "text")]
    pub(crate) id_tag: String,
}

/// §6.45 StartTransaction.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StartTransaction {
    #[serde(deserialize_with = "int")]
    pub(crate) connector_id: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) id_tag: String,
    #[serde(deserialize_with = "int")]
    pub(crate) meter_start: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) timestamp: String,
}

impl StartTransaction {
    /// What makes two of them the same event. IdTags are compared without case (§7.28 CiString20).
    pub(crate) fn sameness(&self) -> String {
        format!(
            "{}|{}|{}|{}",
            self.connector_id.unwrap_or_default(),
            self.id_tag.to_lowercase(),
            self.timestamp,
            self.meter_start.unwrap_or_default()
        )
    }

    pub(crate) fn energy(&self) -> WattHours {
        WattHours(self.meter_start.unwrap_or_default())
    }
}

/// §6.49 StopTransaction.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StopTransaction {
    #[serde(deserialize_with = "int")]
    pub(crate) transaction_id: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) id_tag: String,
    #[serde(deserialize_with = "int")]
    pub(crate) meter_stop: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) timestamp: String,
    #[serde(deserialize_with = "text")]
    reason: String,
}

impl StopTransaction {
    /// §6.49: `Local` where it is left out.
    pub(crate) fn reason(&self) -> String {
        if self.reason.is_empty() { "Local".to_owned() } else { self.reason.chars().take(32).collect() }
    }
}

/// §6.46 StartTransaction.conf; Authorize.conf and StopTransaction.conf have a part of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Verdict {
    #[serde(deserialize_with = "int")]
    pub(crate) transaction_id: Option<i64>,
    #[serde(deserialize_with = "one")]
    pub(crate) id_tag_info: Option<IdTagInfo>,
}

/// §7.8 IdTagInfo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IdTagInfo {
    #[serde(deserialize_with = "text")]
    pub(crate) status: String,
    #[serde(deserialize_with = "text")]
    pub(crate) expiry_date: String,
    #[serde(deserialize_with = "text")]
    pub(crate) parent_id_tag: String,
}

/// §6.47 StatusNotification.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StatusNotification {
    #[serde(deserialize_with = "int")]
    pub(crate) connector_id: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) status: String,
    #[serde(deserialize_with = "text")]
    pub(crate) error_code: String,
    #[serde(deserialize_with = "text")]
    pub(crate) info: String,
}

/// §7.7 ChargePointStatus.
pub(crate) fn connector_status(text: &str) -> ConnectorStatus {
    match text {
        "Available" => ConnectorStatus::Available,
        "Preparing" => ConnectorStatus::Preparing,
        "Charging" => ConnectorStatus::Charging,
        "SuspendedEVSE" => ConnectorStatus::SuspendedEvse,
        "SuspendedEV" => ConnectorStatus::SuspendedEv,
        "Finishing" => ConnectorStatus::Finishing,
        "Reserved" => ConnectorStatus::Reserved,
        "Unavailable" => ConnectorStatus::Unavailable,
        "Faulted" => ConnectorStatus::Faulted,
        _ => ConnectorStatus::Unknown,
    }
}

/// §6.31 MeterValues.req.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MeterValues {
    #[serde(deserialize_with = "int")]
    pub(crate) transaction_id: Option<i64>,
    #[serde(deserialize_with = "many")]
    pub(crate) meter_value: Vec<MeterValue>,
}

impl MeterValues {
    /// Whether it must be kept: it belongs to a transaction, or to the clock-aligned record of the meter (§3.16.3).
    pub(crate) fn durable(&self) -> bool {
        self.transaction_id.is_some()
            || self.meter_value.iter().flat_map(|m| &m.sampled_value).any(|s| s.context == "Sample.Clock")
    }
}

/// §7.33 MeterValue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MeterValue {
    #[serde(deserialize_with = "text")]
    pub(crate) timestamp: String,
    #[serde(deserialize_with = "many")]
    pub(crate) sampled_value: Vec<SampledValue>,
}

/// §7.43 SampledValue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SampledValue {
    #[serde(deserialize_with = "text")]
    pub(crate) value: String,
    #[serde(deserialize_with = "text")]
    pub(crate) context: String,
    #[serde(deserialize_with = "text")]
    pub(crate) format: String,
    #[serde(deserialize_with = "text")]
    pub(crate) measurand: String,
    #[serde(deserialize_with = "text")]
    pub(crate) phase: String,
    #[serde(deserialize_with = "text")]
    pub(crate) location: String,
    #[serde(deserialize_with = "text")]
    pub(crate) unit: String,
}

/// The transactionId as a text; empty without one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TransactionName {
    #[serde(deserialize_with = "text")]
    pub(crate) transaction_id: String,
}

/// §6.51 TriggerMessage.req for the meter values of the connector.
pub(crate) fn trigger_meter_values() -> String {
    json!({ "requestedMessage": "MeterValues", "connectorId": 1 }).to_string()
}

/// §6.4 BootNotification.conf; 2.x has the same.
pub(crate) fn boot_answer(accepted: bool, now: Wall, interval_s: u64) -> String {
    let status = if accepted { "Accepted" } else { "Pending" };
    json!({ "status": status, "currentTime": now, "interval": interval_s }).to_string()
}

/// §6.30 Heartbeat.conf.
pub(crate) fn heartbeat_answer(now: Wall) -> String {
    json!({ "currentTime": now }).to_string()
}

/// §7.2 AuthorizationStatus knows five words; what 2.x says beyond them is a refusal.
fn info(info: &IdTagInfo) -> Value {
    let known = ["Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx"].contains(&info.status.as_str());
    let mut value = json!({ "status": if known { &info.status } else { "Invalid" } });
    for (name, text) in [("expiryDate", &info.expiry_date), ("parentIdTag", &info.parent_id_tag)] {
        if !text.is_empty() {
            value[name] = json!(text);
        }
    }
    value
}

/// §6.2 Authorize.conf and §6.50 StopTransaction.conf.
pub(crate) fn verdict_answer(verdict: &IdTagInfo) -> String {
    json!({ "idTagInfo": info(verdict) }).to_string()
}

/// §6.46 StartTransaction.conf.
pub(crate) fn start_answer(id: i64, verdict: &IdTagInfo) -> String {
    json!({ "transactionId": id, "idTagInfo": info(verdict) }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_payloads_are_read_as_far_as_they_go() {
        let start: StartTransaction = read(r#"{"connectorId":"1","idTag":4711,"meterStart":12.0}"#);
        assert_eq!(
            (start.connector_id, start.id_tag.as_str(), start.meter_start),
            (Some(1), "4711", Some(12))
        );
        let meter: MeterValues =
            read(r#"{"transactionId":5,"transactionId":6,"meterValue":{"sampledValue":{"value":3.5}}}"#);
        assert_eq!(meter.transaction_id, Some(6));
        assert_eq!(meter.meter_value[0].sampled_value[0].value, "3.5");
        let verdict: Verdict = read(r#"{"idTagInfo":"Accepted","transactionId":"9"}"#);
        assert_eq!((verdict.transaction_id, verdict.id_tag_info), (Some(9), None));
        assert!(!read::<MeterValues>("null").durable());
        let aligned =
            r#"{"connectorId":1,"meterValue":[{"sampledValue":[{"value":"1","context":"Sample.Clock"}]}]}"#;
        assert!(read::<MeterValues>(aligned).durable());
    }

    #[test]
    fn retries_of_a_start_are_the_same_event() {
        let one: StartTransaction = read(r#"{"connectorId":1,"idTag":"AbC","meterStart":1,"timestamp":"T"}"#);
        let two: StartTransaction = read(r#"{"timestamp":"T","meterStart":1,"idTag":"aBc","connectorId":1}"#);
        assert_eq!(one.sameness(), two.sameness());
    }
}
