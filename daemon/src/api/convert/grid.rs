//! Limits.

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, time::wall, timestamp};
use crate::{
    api::Caller,
    grid::{Change, Limit, Record, Stage, Wish},
    ids::LimitId,
    site::View,
    time::Wall,
    units::Watts,
};

/// Most characters of a limit's name.
const MAX_ID: usize = 64;
/// Most characters of a limit's reason.
const MAX_REASON: usize = 200;

/// A limit and its life.
pub(in crate::api) fn limit(record: &Record) -> v1::Limit {
    let stage = match record.stage {
        Stage::Received => v1::LimitStage::Received,
        Stage::Accepted => v1::LimitStage::Accepted,
        Stage::Applied => v1::LimitStage::Applied,
        Stage::Effective => v1::LimitStage::Effective,
        Stage::Expired => v1::LimitStage::Expired,
        Stage::Cleared => v1::LimitStage::Cleared,
        Stage::Superseded => v1::LimitStage::Superseded,
    };
    v1::Limit {
        stage: stage.into(),
        received_at: Some(timestamp(record.received)),
        accepted_at: record.accepted.map(timestamp),
        applied_at: record.applied.map(timestamp),
        effective_at: record.effective.map(timestamp),
        ended_at: record.ended.map(timestamp),
        measured_watts: record.measured.map(|w| w.0),
        ..command_only(&record.limit)
    }
}

/// A limit of which nothing but the command is known.
pub(in crate::api) fn command_only(limit: &Limit) -> v1::Limit {
    v1::Limit {
        id: limit.id.to_string(),
        issuer: limit.issuer.clone(),
        role: limit.role.name().to_owned(),
        node: limit.node.to_string(),
        watts: limit.watts.0,
        valid_from: Some(timestamp(limit.valid_from)),
        valid_until: limit.valid_until.map(timestamp),
        reason: limit.reason.clone(),
        ..v1::Limit::default()
    }
}

/// What a command changed.
pub(in crate::api) const fn change(change: Change) -> v1::Change {
    match change {
        Change::None => v1::Change::None,
        Change::Created => v1::Change::Created,
        Change::Replaced => v1::Change::Replaced,
        Change::Removed => v1::Change::Removed,
    }
}

/// The name of a limit.
pub(in crate::api) fn limit_id(text: &str) -> Result<LimitId, Status> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if text.is_empty() || text.len() > MAX_ID || !text.bytes().all(fits) {
        let problem = format!("{text:?} is not a name; use 1 to {MAX_ID} characters of A-Z a-z 0-9 . _ : -");
        return Err(invalid("id", problem));
    }
    Ok(LimitId::new(text))
}

/// A wish for a limit, checked as far as request, picture and time tell.
pub(in crate::api) fn set_limit(
    request: v1::SetLimitRequest,
    caller: Caller,
    view: &View,
    now: Wall,
) -> Result<Wish, Status> {
    let v1::SetLimitRequest { id, node, watts, valid_from, valid_until, reason } = request;
    let id = if id.is_empty() { None } else { Some(limit_id(&id)?) };
    let node = if node.is_empty() {
        None
    } else {
        let found = view.nodes.iter().find(|known| known.id.as_str() == node);
        Some(found.ok_or_else(|| unknown_node(&node, view))?.id.clone())
    };
    if watts < 0 {
        return Err(invalid("watts", format!("{watts} is negative; a limit is 0 or more")));
    }
    let valid_from = valid_from.map(|time| wall("valid_from", time)).transpose()?;
    let valid_until = valid_until.map(|time| wall("valid_until", time)).transpose()?;
    if let Some(until) = valid_until {
        let from = valid_from.unwrap_or(now);
        if until <= from {
            return Err(invalid("valid_until", format!("{until} is not after the beginning, {from}")));
        }
        if until <= now {
            return Err(invalid("valid_until", format!("{until} is over already; it is {now}")));
        }
    }
    if reason.chars().count() > MAX_REASON {
        return Err(invalid("reason", format!("is longer than {MAX_REASON} characters")));
    }
    // The reason is shown on terminals and in logs of others.
    if reason.chars().any(char::is_control) {
        return Err(invalid("reason", "holds control characters; one line of plain text would be right"));
    }
    let Caller { issuer, role } = caller;
    Ok(Wish { id, issuer, role, node, watts: Watts(watts), valid_from, valid_until, reason })
}

fn unknown_node(node: &str, view: &View) -> Status {
    let known: Vec<_> = view.nodes.iter().take(20).map(|node| node.id.as_str()).collect();
    invalid("node", format!("{node:?} is not a node of this site; its nodes are {}", known.join(", ")))
}
