//! Limits.

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, time::wall, timestamp};
use crate::{
    api::Caller,
    grid::{Change, Limit, Record, Stage, Step, Wish, guard::State, pmin::Minimum},
    ids::LimitId,
    site::{View, view::SourceView},
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
        owed_watts: record.owed.0,
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
        percent: limit.percent,
        steps: limit.steps.iter().map(step).collect(),
        ..v1::Limit::default()
    }
}

fn step(step: &Step) -> v1::LimitStep {
    v1::LimitStep { from: Some(timestamp(step.from)), watts: step.watts.0 }
}

/// A source that must be heard from.
pub(in crate::api) fn source(source: &SourceView) -> v1::GridSource {
    let state = match source.state {
        State::Init => v1::SourceState::Init,
        State::UnlimitedControlled => v1::SourceState::UnlimitedControlled,
        State::Limited => v1::SourceState::Limited,
        State::Failsafe => v1::SourceState::Failsafe,
        State::UnlimitedAutonomous => v1::SourceState::UnlimitedAutonomous,
    };
    let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    v1::GridSource {
        issuer: source.issuer.clone(),
        node: source.node.to_string(),
        state: state.into(),
        since: Some(timestamp(source.since)),
        heard_at: source.heard.map(timestamp),
        timeout_seconds: seconds(source.timeout),
        failsafe_watts: source.failsafe.0,
        failsafe_seconds: seconds(source.failsafe_for),
    }
}

/// What the devices are owed.
pub(in crate::api) fn minimum(minimum: &Minimum) -> v1::GetMinimumPowerResponse {
    let counted = minimum.counted.iter().map(|device| v1::CountedDevice {
        name: device.name.clone(),
        kind: device.kind.to_owned(),
        watts: device.power.0,
        outside: device.outside.unwrap_or_default().to_owned(),
    });
    v1::GetMinimumPowerResponse {
        watts: minimum.watts.0,
        devices: u32::try_from(minimum.devices).unwrap_or(u32::MAX),
        simultaneity_percent: minimum.simultaneity.into(),
        base_watts: minimum.base.0,
        counted: counted.collect(),
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
    let v1::SetLimitRequest { id, node, watts, valid_from, valid_until, reason, percent, steps } = request;
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
    if percent.is_some() && watts != 0 {
        return Err(invalid("percent", "stands beside watts; one of them is right"));
    }
    let step = |step: v1::LimitStep| {
        let from =
            step.from.ok_or_else(|| invalid("steps", "a step has no time; say from when on it holds"))?;
        Ok(Step { from: wall("steps", from)?, watts: Watts(step.watts) })
    };
    let steps = steps.into_iter().map(step).collect::<Result<_, Status>>()?;
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
    Ok(Wish { id, issuer, role, node, watts: Watts(watts), percent, steps, valid_from, valid_until, reason })
}

fn unknown_node(node: &str, view: &View) -> Status {
    let known: Vec<_> = view.nodes.iter().take(20).map(|node| node.id.as_str()).collect();
    invalid("node", format!("{node:?} is not a node of this site; its nodes are {}", known.join(", ")))
}
