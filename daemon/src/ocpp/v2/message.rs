//! The OCPP 2.0.1 and 2.1 messages that we act on, read leniently, and those that we originate, written strictly.
//!
//! In: payloads as peers send them. Out: their meaning in the terms of 1.6 where both have it, so that everything
//! behind this is one. Invariant: as in [`super::super::v16::message`].

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::v16::message::{IdTagInfo, MeterValue, MeterValues, SampledValue, int, many, one, text};
use crate::{site::event::ConnectorStatus, time::Wall};

/// BootNotificationRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BootNotification {
    #[serde(deserialize_with = "one")]
    pub(crate) charging_station: Option<ChargingStation>,
}

/// ChargingStationType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ChargingStation {
    #[serde(deserialize_with = "text")]
    pub(crate) vendor_name: String,
    #[serde(deserialize_with = "text")]
    pub(crate) model: String,
}

/// IdTokenType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IdToken {
    #[serde(deserialize_with = "text")]
    pub(crate) id_token: String,
    #[serde(rename = "type", deserialize_with = "text")]
    pub(crate) kind: String,
}

impl IdToken {
    /// The card, as it is learnt: without case. Empty where there is none to judge (`NoAuthorization`, C02).
    pub(crate) fn card(&self) -> &str {
        if self.kind == "NoAuthorization" { "" } else { &self.id_token }
    }
}

/// AuthorizeRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Authorize {
    #[serde(deserialize_with = "one")]
    pub(crate) id_token: Option<IdToken>,
}

/// AuthorizeResponse, TransactionEventResponse.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Verdict {
    #[serde(deserialize_with = "one")]
    id_token_info: Option<IdTokenInfo>,
}

/// IdTokenInfoType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct IdTokenInfo {
    #[serde(deserialize_with = "text")]
    status: String,
    #[serde(deserialize_with = "text")]
    cache_expiry_date_time: String,
    #[serde(deserialize_with = "one")]
    group_id_token: Option<IdToken>,
}

/// What an answer says about a card.
pub(crate) fn verdict(payload: &str) -> Option<IdTagInfo> {
    let info = super::super::v16::message::read::<Verdict>(payload).id_token_info?;
    Some(IdTagInfo {
        status: info.status,
        expiry_date: info.cache_expiry_date_time,
        parent_id_tag: info.group_id_token.unwrap_or_default().id_token,
    })
}

/// AuthorizeResponse and TransactionEventResponse with a verdict.
pub(crate) fn verdict_answer(verdict: &IdTagInfo) -> String {
    let mut info = json!({ "status": verdict.status });
    if Wall::parse(&verdict.expiry_date).is_some() {
        info["cacheExpiryDateTime"] = json!(verdict.expiry_date);
    }
    if !verdict.parent_id_tag.is_empty() {
        info["groupIdToken"] = json!({ "idToken": verdict.parent_id_tag, "type": "Central" });
    }
    json!({ "idTokenInfo": info }).to_string()
}

/// EVSEType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Evse {
    #[serde(deserialize_with = "int")]
    pub(crate) id: Option<i64>,
}

/// TransactionType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TransactionInfo {
    #[serde(deserialize_with = "text")]
    pub(crate) transaction_id: String,
    #[serde(deserialize_with = "text")]
    pub(crate) charging_state: String,
    #[serde(deserialize_with = "text")]
    stopped_reason: String,
}

/// TransactionEventRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TransactionEvent {
    #[serde(deserialize_with = "text")]
    pub(crate) event_type: String,
    #[serde(deserialize_with = "text")]
    pub(crate) timestamp: String,
    #[serde(deserialize_with = "one")]
    pub(crate) transaction_info: Option<TransactionInfo>,
    #[serde(deserialize_with = "one")]
    pub(crate) evse: Option<Evse>,
    #[serde(deserialize_with = "one")]
    pub(crate) id_token: Option<IdToken>,
    #[serde(deserialize_with = "many")]
    meter_value: Vec<Meter>,
}

impl TransactionEvent {
    /// Its transactionId; empty if it has none.
    pub(crate) fn transaction(&self) -> &str {
        self.transaction_info.as_ref().map_or("", |t| &t.transaction_id)
    }

    /// What it measures.
    pub(crate) fn meter_values(&self) -> MeterValues {
        MeterValues { transaction_id: None, meter_value: self.meter_value.iter().map(Meter::plain).collect() }
    }

    /// The register at the beginning of what it tells, in Wh.
    pub(crate) fn energy(&self) -> Option<i64> {
        self.registers().next()
    }

    /// The register at the end of what it tells, in Wh.
    pub(crate) fn last_energy(&self) -> Option<i64> {
        self.registers().last()
    }

    fn registers(&self) -> impl Iterator<Item = i64> + '_ {
        let all = self.meter_value.iter().flat_map(|m| &m.sampled_value);
        let register = all.filter(|s| {
            (s.measurand.is_empty() || s.measurand == "Energy.Active.Import.Register") && s.phase.is_empty()
        });
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates; registers are far smaller")]
        register.filter_map(|sample| sample.scaled().map(|wh| wh.round() as i64))
    }

    /// Why it ended; `Local` where it is left out (ReasonEnumType).
    pub(crate) fn stopped_reason(&self) -> String {
        let reason = self.transaction_info.as_ref().map(|t| t.stopped_reason.as_str());
        reason.filter(|r| !r.is_empty()).unwrap_or("Local").chars().take(32).collect()
    }

    /// ChargingStateEnumType in the terms of 1.6; nothing if it does not tell.
    pub(crate) fn status(&self) -> Option<ConnectorStatus> {
        if self.event_type == "Ended" {
            return Some(ConnectorStatus::Finishing);
        }
        Some(match self.transaction_info.as_ref()?.charging_state.as_str() {
            "Charging" => ConnectorStatus::Charging,
            "SuspendedEV" => ConnectorStatus::SuspendedEv,
            "SuspendedEVSE" => ConnectorStatus::SuspendedEvse,
            "EVConnected" | "Idle" => ConnectorStatus::Preparing,
            _ => return None,
        })
    }
}

/// MeterValuesRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MeterValuesRequest {
    #[serde(deserialize_with = "many")]
    meter_value: Vec<Meter>,
}

impl MeterValuesRequest {
    /// In the terms of 1.6.
    pub(crate) fn plain(&self) -> MeterValues {
        MeterValues { transaction_id: None, meter_value: self.meter_value.iter().map(Meter::plain).collect() }
    }
}

/// MeterValueType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meter {
    #[serde(deserialize_with = "text")]
    timestamp: String,
    #[serde(deserialize_with = "many")]
    sampled_value: Vec<Sample>,
}

impl Meter {
    fn plain(&self) -> MeterValue {
        MeterValue {
            timestamp: self.timestamp.clone(),
            sampled_value: self.sampled_value.iter().map(Sample::plain).collect(),
        }
    }
}

/// SampledValueType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Sample {
    #[serde(deserialize_with = "text")]
    value: String,
    #[serde(deserialize_with = "text")]
    context: String,
    #[serde(deserialize_with = "text")]
    measurand: String,
    #[serde(deserialize_with = "text")]
    phase: String,
    #[serde(deserialize_with = "text")]
    location: String,
    #[serde(deserialize_with = "one")]
    unit_of_measure: Option<Unit>,
}

/// UnitOfMeasureType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Unit {
    #[serde(deserialize_with = "text")]
    unit: String,
    #[serde(deserialize_with = "int")]
    multiplier: Option<i64>,
}

impl Sample {
    /// Value times 10 to the multiplier.
    fn scaled(&self) -> Option<f64> {
        let multiplier = self.unit_of_measure.as_ref().and_then(|u| u.multiplier).unwrap_or(0);
        let power = i32::try_from(multiplier).ok().filter(|m| m.abs() <= 12)?;
        Some(self.value.trim().parse::<f64>().ok()? * 10_f64.powi(power)).filter(|v| v.is_finite())
    }

    fn plain(&self) -> SampledValue {
        let unit = self.unit_of_measure.as_ref().map(|u| u.unit.clone()).unwrap_or_default();
        SampledValue {
            value: self.scaled().map(|v| v.to_string()).unwrap_or_default(),
            context: self.context.clone(),
            format: String::new(),
            measurand: self.measurand.clone(),
            phase: self.phase.clone(),
            location: self.location.clone(),
            unit,
        }
    }
}

/// StatusNotificationRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct StatusNotification {
    #[serde(deserialize_with = "int")]
    pub(crate) evse_id: Option<i64>,
    #[serde(deserialize_with = "text")]
    pub(crate) connector_status: String,
}

/// NotifyEventRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NotifyEvent {
    #[serde(deserialize_with = "many")]
    event_data: Vec<EventData>,
}

/// EventDataType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EventData {
    #[serde(deserialize_with = "int")]
    severity: Option<i64>,
    #[serde(deserialize_with = "text")]
    actual_value: String,
    #[serde(deserialize_with = "one")]
    component: Option<Component>,
    #[serde(deserialize_with = "one")]
    variable: Option<Named>,
}

/// ComponentType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Component {
    #[serde(deserialize_with = "text")]
    name: String,
    #[serde(deserialize_with = "one")]
    evse: Option<Evse>,
}

/// VariableType.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(deserialize_with = "text")]
    name: String,
}

/// Severity 4 is Error; smaller is worse (2.0.1 Part 2 §2, EventDataType).
const ERROR: i64 = 4;

impl NotifyEvent {
    /// Whether one of its events is an error or worse. 2.0.1 does not carry the severity: a monitor that does not tell
    /// it counts as one.
    pub(crate) fn matters(&self) -> bool {
        self.event_data.iter().any(|e| e.severity.is_none_or(|s| s <= ERROR) && !e.is_state())
    }

    /// What it tells of connectors (the other way of StatusNotification, G01).
    pub(crate) fn states(&self) -> impl Iterator<Item = StatusNotification> {
        self.event_data.iter().filter(|e| e.is_state()).map(|e| StatusNotification {
            evse_id: e.component.as_ref().and_then(|c| c.evse.as_ref()?.id),
            connector_status: e.actual_value.clone(),
        })
    }
}

impl EventData {
    fn is_state(&self) -> bool {
        self.component.as_ref().is_some_and(|c| c.name == "Connector")
            && self.variable.as_ref().is_some_and(|v| v.name == "AvailabilityState")
    }
}

/// The payload inside a signed message (Part 4 §7: JWS, flattened JSON serialisation); empty if it cannot be read.
/// The signature is for the backend to judge.
pub(crate) fn signed(payload: &str) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Jws {
        #[serde(deserialize_with = "text")]
        payload: String,
    }
    let jws: Jws = super::super::v16::message::read(payload);
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(jws.payload.trim_end_matches('=')).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// TriggerMessageRequest for the meter values of the EVSE.
pub(crate) fn trigger_meter_values() -> Value {
    json!({ "requestedMessage": "MeterValues", "evse": { "id": 1 } })
}

#[cfg(test)]
mod tests {
    use super::{super::super::v16::message::read, *};

    #[test]
    fn an_event_is_read_in_the_terms_of_1_6() {
        let event: TransactionEvent = read(
            r#"{"eventType":"Updated","timestamp":"2026-11-23T12:00:00Z","triggerReason":"MeterValuePeriodic","seqNo":3,
            "transactionInfo":{"transactionId":"t-1","chargingState":"SuspendedEV"},"evse":{"id":1},
            "idToken":{"idToken":"04AA","type":"ISO14443"},
            "meterValue":[{"timestamp":"2026-11-23T12:00:00Z","sampledValue":[
                {"value":1.5,"unitOfMeasure":{"unit":"Wh","multiplier":3}},
                {"value":16,"measurand":"Current.Import","phase":"L1","unitOfMeasure":{"unit":"A"}}]}]}"#,
        );
        assert_eq!((event.transaction(), event.energy()), ("t-1", Some(1500)));
        assert_eq!(event.status(), Some(ConnectorStatus::SuspendedEv));
        let plain = event.meter_values();
        assert_eq!(plain.meter_value[0].sampled_value[1].value, "16");
        assert_eq!(event.id_token.unwrap().card(), "04AA");
    }

    #[test]
    fn what_is_signed_is_looked_into() {
        let inner = r#"{"eventType":"Started","transactionInfo":{"transactionId":"x"}}"#;
        let jws =
            json!({ "payload": BASE64_URL_SAFE_NO_PAD.encode(inner), "protected": "e", "signature": "s" });
        assert_eq!(read::<TransactionEvent>(&signed(&jws.to_string())).transaction(), "x");
        assert_eq!(signed("{}"), "");
    }

    #[test]
    fn only_errors_are_kept_and_states_are_understood() {
        let event = |severity: &str, component: &str| {
            read::<NotifyEvent>(&format!(
                r#"{{"eventData":[{{{severity}"actualValue":"Occupied","component":{{"name":"{component}",
                "evse":{{"id":1}}}},"variable":{{"name":"AvailabilityState"}}}}]}}"#
            ))
        };
        assert!(event(r#""severity":4,"#, "EVSE").matters());
        assert!(!event(r#""severity":5,"#, "EVSE").matters());
        assert!(event("", "EVSE").matters());
        let state = event("", "Connector");
        assert!(!state.matters());
        let states: Vec<_> = state.states().collect();
        assert_eq!((states[0].evse_id, states[0].connector_status.as_str()), (Some(1), "Occupied"));
    }
}
