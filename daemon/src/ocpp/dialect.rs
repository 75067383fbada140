//! What the versions say in different words: read from either into one meaning, written from one meaning into either.
//!
//! In: a version and a payload. Out: facts in the terms of 1.6, or payloads of ours. Invariant: the route itself knows
//! no member's name.

use serde_json::json;

use super::{
    Version,
    v2::{message as v2, needs::NotifyChargingNeeds},
    v16::message::{self as v16, IdTagInfo, MeterValues, read},
};
use crate::site::event::{ConnectorStatus, Needs};

/// What a station says about one of its connectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectorState {
    /// Connector (1.6) or EVSE (2.x); 0 is the station as a whole.
    pub(crate) place: i64,
    /// In the terms of 1.6. `Occupied` of 2.x is [`ConnectorStatus::Preparing`].
    pub(crate) status: ConnectorStatus,
    /// As it was written.
    pub(crate) word: String,
    /// Empty for none.
    pub(crate) error: String,
}

impl Version {
    /// Make and model of a BootNotification.
    pub(crate) fn boot(self, payload: &str) -> (String, String) {
        if self.is_2() {
            let station = read::<v2::BootNotification>(payload).charging_station.unwrap_or_default();
            return (station.vendor_name, station.model);
        }
        let boot: v16::BootNotification = read(payload);
        (boot.charge_point_vendor, boot.charge_point_model)
    }

    /// The card of an Authorize.
    pub(crate) fn card(self, payload: &str) -> String {
        if self.is_2() {
            return read::<v2::Authorize>(payload).id_token.unwrap_or_default().card().to_owned();
        }
        read::<v16::Authorize>(payload).id_tag
    }

    /// What an answer of the backend says about a card.
    pub(crate) fn verdict(self, payload: &str) -> Option<IdTagInfo> {
        if self.is_2() { v2::verdict(payload) } else { read::<v16::Verdict>(payload).id_tag_info }
    }

    /// The answer to Authorize.
    pub(crate) fn verdict_answer(self, verdict: &IdTagInfo) -> String {
        if self.is_2() { v2::verdict_answer(verdict) } else { v16::verdict_answer(verdict) }
    }

    /// A StatusNotification.
    pub(crate) fn state(self, payload: &str) -> Option<ConnectorState> {
        if self.is_2() {
            return state_2(read(payload));
        }
        let message: v16::StatusNotification = read(payload);
        let error = if message.error_code == "NoError" { String::new() } else { message.error_code };
        Some(ConnectorState {
            place: message.connector_id?,
            status: v16::connector_status(&message.status),
            word: message.status,
            error,
        })
    }

    /// What a NotifyEvent says about connectors.
    pub(crate) fn states(self, payload: &str) -> Vec<ConnectorState> {
        let states = self.is_2().then(|| read::<v2::NotifyEvent>(payload));
        states.iter().flat_map(v2::NotifyEvent::states).filter_map(state_2).collect()
    }

    /// What a car needs, as a NotifyEVChargingNeeds says.
    pub(crate) fn needs(self, action: &str, payload: &str) -> Option<Needs> {
        (self.is_2() && action == "NotifyEVChargingNeeds")
            .then(|| read::<NotifyChargingNeeds>(payload).needs())
            .flatten()
    }

    /// MeterValues in the terms of 1.6.
    pub(crate) fn meter_values(self, payload: &str) -> MeterValues {
        if self.is_2() { read::<v2::MeterValuesRequest>(payload).plain() } else { read(payload) }
    }

    /// The CALL that ends a transaction: its number as the EVSE knows it, its name in 2.x.
    pub(crate) fn stop(self, number: i64, name: &str) -> (&'static str, String) {
        if self.is_2() {
            ("RequestStopTransaction", json!({ "transactionId": name }).to_string())
        } else {
            ("RemoteStopTransaction", json!({ "transactionId": number }).to_string())
        }
    }

    /// TriggerMessage for the meter values.
    pub(crate) fn trigger_meter_values(self) -> String {
        if self.is_2() { v2::trigger_meter_values().to_string() } else { v16::trigger_meter_values() }
    }
}

fn state_2(message: v2::StatusNotification) -> Option<ConnectorState> {
    let status = match message.connector_status.as_str() {
        "Available" => ConnectorStatus::Available,
        "Occupied" => ConnectorStatus::Preparing,
        "Reserved" => ConnectorStatus::Reserved,
        "Unavailable" => ConnectorStatus::Unavailable,
        "Faulted" => ConnectorStatus::Faulted,
        _ => ConnectorStatus::Unknown,
    };
    Some(ConnectorState {
        place: message.evse_id?,
        status,
        word: message.connector_status,
        error: String::new(),
    })
}
