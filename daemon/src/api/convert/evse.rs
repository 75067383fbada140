//! EVSEs.

use ladewart_proto::v1;

use super::{site::currents, timestamp};
use crate::{
    site::{event::ConnectorStatus, view::EvseView},
    units::{Milliamps, PerPhase},
};

const fn status(status: ConnectorStatus) -> v1::ConnectorStatus {
    match status {
        ConnectorStatus::Unknown => v1::ConnectorStatus::Unspecified,
        ConnectorStatus::Available => v1::ConnectorStatus::Available,
        ConnectorStatus::Preparing => v1::ConnectorStatus::Preparing,
        ConnectorStatus::Charging => v1::ConnectorStatus::Charging,
        ConnectorStatus::SuspendedEvse => v1::ConnectorStatus::SuspendedEvse,
        ConnectorStatus::SuspendedEv => v1::ConnectorStatus::SuspendedEv,
        ConnectorStatus::Finishing => v1::ConnectorStatus::Finishing,
        ConnectorStatus::Reserved => v1::ConnectorStatus::Reserved,
        ConnectorStatus::Unavailable => v1::ConnectorStatus::Unavailable,
        ConnectorStatus::Faulted => v1::ConnectorStatus::Faulted,
    }
}

/// One EVSE.
pub(in crate::api) fn evse(evse: &EvseView) -> v1::Evse {
    v1::Evse {
        id: evse.id.to_string(),
        identity: evse.identity.to_string(),
        node: evse.node.to_string(),
        connected: evse.connected_since.is_some(),
        connected_since: evse.connected_since.map(timestamp),
        backend_connected: evse.backend_connected,
        status: status(evse.status).into(),
        error_code: evse.error.clone(),
        vendor: evse.vendor.clone(),
        model: evse.model.clone(),
        transaction: evse.transaction.as_ref().map(|transaction| v1::Transaction {
            id: transaction.id,
            backend_id: transaction.backend_id,
            started: Some(timestamp(transaction.started)),
            meter_start_watthours: transaction.meter_start.0,
        }),
        setpoint: evse.setpoint.as_ref().map(|setpoint| v1::Setpoint {
            milliamps: setpoint.limit.0,
            failsafe_milliamps: setpoint.failsafe.0,
            confirmed: setpoint.confirmed,
            lease_until: setpoint.lease_until.map(timestamp),
            reason: setpoint.reason.clone(),
        }),
        draw: evse.draw.as_ref().map(|draw| v1::Draw {
            // An EVSE that tells only a power tells nothing about its phases.
            currents: (draw.currents.is_some() || evse.draw_phases != PerPhase([Milliamps::ZERO; 3]))
                .then(|| currents(&evse.draw_phases)),
            power_watts: draw.power.map(|w| w.0),
            energy_watthours: draw.energy.map(|wh| wh.0),
            at: Some(timestamp(draw.at.wall)),
        }),
        queued_messages: evse.queued,
        dead_messages: evse.dead,
        problem: evse.problem.clone(),
    }
}
