//! What a car says that it needs: `NotifyEVChargingNeeds` (OCPP 2.0.1 Part 2 K15 and K17, `ChargingNeedsType`).
//!
//! In: the payload as the EVSE sends it on from the car (ISO 15118). Out: by when it leaves, how much it still wants,
//! what it can take. Invariant: what is missing, unreadable or not above zero is left out, never guessed.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::v16::message::{int, one, text};
use crate::{
    site::event::Needs,
    time::Wall,
    units::{Milliamps, WattHours},
};

/// NotifyEVChargingNeedsRequest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NotifyChargingNeeds {
    #[serde(deserialize_with = "int")]
    evse_id: Option<i64>,
    #[serde(deserialize_with = "one")]
    charging_needs: Option<ChargingNeeds>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ChargingNeeds {
    /// EnergyTransferModeEnumType.
    #[serde(deserialize_with = "text")]
    requested_energy_transfer: String,
    #[serde(deserialize_with = "text")]
    departure_time: String,
    #[serde(deserialize_with = "one")]
    ac_charging_parameters: Option<Parameters>,
    #[serde(deserialize_with = "one")]
    dc_charging_parameters: Option<Parameters>,
    /// 2.1, of cars that speak ISO 15118-20.
    #[serde(rename = "v2xChargingParameters", deserialize_with = "one")]
    both_ways: Option<BothWays>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Parameters {
    /// Wh.
    #[serde(deserialize_with = "decimal")]
    energy_amount: Option<f64>,
    /// A, per phase; of DC on the car's side.
    #[serde(deserialize_with = "decimal")]
    ev_max_current: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BothWays {
    /// Wh.
    #[serde(deserialize_with = "decimal")]
    ev_target_energy_request: Option<f64>,
    /// A.
    #[serde(deserialize_with = "decimal")]
    max_charge_current: Option<f64>,
}

impl NotifyChargingNeeds {
    /// What it means for the site; `None` if it says nothing that can be used. One EVSE stands behind each connection.
    pub(crate) fn needs(&self) -> Option<Needs> {
        if self.evse_id.is_some_and(|id| id < 1) {
            return None;
        }
        let needs = self.charging_needs.as_ref()?;
        let ac = needs.ac_charging_parameters.as_ref();
        let both = needs.both_ways.as_ref();
        let energy = [
            ac.and_then(|p| p.energy_amount),
            needs.dc_charging_parameters.as_ref().and_then(|p| p.energy_amount),
            both.and_then(|p| p.ev_target_energy_request),
        ];
        let current = [ac.and_then(|p| p.ev_max_current), both.and_then(|p| p.max_charge_current)];
        let phases = match needs.requested_energy_transfer.as_str() {
            "AC_single_phase" => Some(1),
            "AC_two_phase" => Some(2),
            "AC_three_phase" => Some(3),
            _ => None,
        };
        let needs = Needs {
            departure: Wall::parse(&needs.departure_time),
            energy: energy.into_iter().flatten().find_map(|wh| whole(wh, 1.0)).map(WattHours),
            most: current.into_iter().flatten().find_map(|amps| whole(amps, 1000.0)).map(Milliamps),
            phases,
        };
        (needs != Needs::default()).then_some(needs)
    }
}

/// Rounded down; only what is above zero and could be a car's.
#[expect(clippy::cast_possible_truncation, reason = "bounded")]
fn whole(value: f64, times: f64) -> Option<i64> {
    let value = (value * times).floor();
    (1.0..1e7).contains(&value).then_some(value as i64)
}

/// A number, in quotes or not.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ocpp::v16::message::read;

    fn needs(payload: &Value) -> Option<Needs> {
        read::<NotifyChargingNeeds>(&payload.to_string()).needs()
    }

    #[test]
    fn what_is_told_is_read() {
        let departure = "2026-11-24T06:30:00Z";
        let ac = json!({ "evseId": 1, "chargingNeeds": {
            "requestedEnergyTransfer": "AC_two_phase", "departureTime": departure,
            "acChargingParameters": { "energyAmount": 24_000, "evMinCurrent": 6, "evMaxCurrent": 16, "evMaxVoltage": 400 } } });
        let expected = Needs {
            departure: Wall::parse(departure),
            energy: Some(WattHours(24_000)),
            most: Some(Milliamps(16_000)),
            phases: Some(2),
        };
        assert_eq!(needs(&ac), Some(expected));
        let both = json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": "AC_BPT",
            "v2xChargingParameters": { "evTargetEnergyRequest": 10_500.7, "maxChargeCurrent": "32.5" } } });
        let expected =
            Needs { energy: Some(WattHours(10_500)), most: Some(Milliamps(32_500)), ..Needs::default() };
        assert_eq!(needs(&both), Some(expected));
        let dc = json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": "DC",
            "dcChargingParameters": { "energyAmount": 40_000, "evMaxCurrent": 300 } } });
        assert_eq!(needs(&dc), Some(Needs { energy: Some(WattHours(40_000)), ..Needs::default() }));
    }

    #[test]
    fn what_cannot_be_used_is_left_out() {
        for payload in [
            json!({}),
            json!({ "evseId": 0, "chargingNeeds": { "requestedEnergyTransfer": "AC_three_phase" } }),
            json!({ "evseId": 1, "chargingNeeds": [] }),
            json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": "DC", "departureTime": "tomorrow",
                "dcChargingParameters": { "energyAmount": -5 } } }),
            json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": 7,
                "acChargingParameters": { "energyAmount": 1e300, "evMaxCurrent": "NaN" } } }),
        ] {
            assert_eq!(needs(&payload), None, "{payload}");
        }
    }
}
