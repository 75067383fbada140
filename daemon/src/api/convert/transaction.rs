//! Transactions, dead letters, orders.

use std::collections::HashMap;

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, timestamp};
use crate::{
    ocpp::{
        ledger::{DeadLetter, Delivery, Session},
        orders::Failed,
    },
    time::Wall,
};

/// OCPP 1.6 §7.28.
const MOST_TAG: usize = 20;

/// A card.
pub(in crate::api) fn id_tag(id_tag: String) -> Result<String, Status> {
    let fits =
        !id_tag.is_empty() && id_tag.chars().count() <= MOST_TAG && !id_tag.chars().any(char::is_control);
    if fits { Ok(id_tag) } else { Err(invalid("id_tag", format!("use 1 to {MOST_TAG} characters"))) }
}

/// A time that need not be given.
pub(in crate::api) fn wall(
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Wall>, Status> {
    time.map(|time| super::time::wall(field, time)).transpose()
}

/// How many.
pub(in crate::api) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Why an EVSE did not do it.
pub(in crate::api) fn failed(why: &Failed) -> Status {
    let text = why.to_string();
    match why {
        Failed::Unknown(_) => Status::not_found(text),
        Failed::Away | Failed::Stopping => Status::unavailable(text),
        Failed::Silent => Status::deadline_exceeded(text),
        Failed::Refused(_) | Failed::Nothing(_) => Status::failed_precondition(text),
        Failed::Unsupported(_) => Status::unimplemented(text),
    }
}

/// A transaction; `names` are the EVSEs by identity.
pub(in crate::api) fn transaction(
    session: Session,
    names: &HashMap<String, String>,
) -> v1::TransactionRecord {
    let delivery = match session.delivery {
        Delivery::Local => v1::TransactionDelivery::Local,
        Delivery::Waiting => v1::TransactionDelivery::Waiting,
        Delivery::Delivered => v1::TransactionDelivery::Delivered,
        Delivery::Refused => v1::TransactionDelivery::Refused,
    };
    v1::TransactionRecord {
        number: session.number,
        evse_id: names.get(&session.identity).cloned().unwrap_or_default(),
        energy_watthours: session.energy(),
        identity: session.identity,
        id: session.id,
        backend_id: session.backend_id.unwrap_or_default(),
        connector: session.connector,
        id_tag: session.id_tag,
        started: Some(timestamp(session.started)),
        stopped: session.stopped.map(timestamp),
        meter_start_watthours: session.meter_start,
        meter_stop_watthours: session.meter_stop,
        reason: session.reason,
        delivery: delivery.into(),
    }
}

/// A dead letter; `names` are the EVSEs by identity.
pub(in crate::api) fn dead_letter(letter: DeadLetter, names: &HashMap<String, String>) -> v1::DeadLetter {
    v1::DeadLetter {
        evse_id: names.get(&letter.identity).cloned().unwrap_or_default(),
        identity: letter.identity,
        sequence: letter.seq,
        frame: letter.frame,
        reason: letter.why,
        attempts: letter.attempts,
        given_up: letter.died.map(timestamp),
    }
}
