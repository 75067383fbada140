//! The whole site.

use ladewart_proto::v1;

use super::{evse, limit, meter, timestamp, uplink};
use crate::{
    site::{
        event::Level,
        view::{ContactView, DeviceView, NodeView, RelayView, View},
    },
    smgw,
    time::Now,
    units::{Milliamps, PerPhase, Phase},
};

/// The picture, with ages as of `now`. Limits that are over are left out.
pub(in crate::api) fn site(view: &View, status: Option<&smgw::Status>, now: Now) -> v1::Site {
    v1::Site {
        name: view.name.clone(),
        at: Some(timestamp(view.at.wall)),
        nodes: view.nodes.iter().map(node).collect(),
        evses: view.evses.iter().map(evse).collect(),
        meters: view.meters.iter().map(|m| meter(m, now)).collect(),
        contacts: view.contacts.iter().map(contact).collect(),
        relays: view.relays.iter().map(relay).collect(),
        limits: view.limits.iter().filter(|record| record.ended.is_none()).map(limit).collect(),
        devices: view.devices.iter().map(device).collect(),
        uplink: status.map(|status| uplink(status, view)),
    }
}

pub(super) fn currents(amps: &PerPhase<Milliamps>) -> v1::PhaseCurrents {
    v1::PhaseCurrents {
        l1_milliamps: amps[Phase::L1].0,
        l2_milliamps: amps[Phase::L2].0,
        l3_milliamps: amps[Phase::L3].0,
    }
}

fn node(node: &NodeView) -> v1::Node {
    let least = node.fuse.0.into_iter().min().unwrap_or_default();
    v1::Node {
        id: node.id.to_string(),
        parent: node.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        fuse_milliamps: u32::try_from(least.0.max(0)).unwrap_or(u32::MAX),
        fuses: Some(currents(&node.fuse)),
        contract_watts: node.contract.map(|w| w.0),
        meter: node.meter.as_ref().map(ToString::to_string).unwrap_or_default(),
        available: Some(currents(&node.available)),
        other_load: Some(currents(&node.other_load)),
        power_limit_watts: node.power_limit.map(|w| w.0),
        reason: node.reason.clone(),
    }
}

fn device(device: &DeviceView) -> v1::Device {
    v1::Device {
        id: device.id.to_string(),
        node: device.node.to_string(),
        kind: device.kind.to_owned(),
        power_watts: device.power.0,
        granted_watts: device.granted.0,
        measured_watts: device.measured.map(|w| w.0),
        reason: device.reason.clone(),
    }
}

fn contact(contact: &ContactView) -> v1::Contact {
    let (state, problem) = match &contact.level {
        // The interface has no codes: closed stands for "limits somehow".
        Level::Open | Level::Code(0) => (v1::ContactState::Open, String::new()),
        Level::Closed | Level::Code(_) => (v1::ContactState::Closed, String::new()),
        Level::Unreadable(why) => (v1::ContactState::Unreadable, why.clone()),
    };
    v1::Contact {
        id: contact.id.to_string(),
        state: state.into(),
        since: Some(timestamp(contact.since)),
        problem,
    }
}

fn relay(relay: &RelayView) -> v1::Relay {
    v1::Relay {
        id: relay.id.to_string(),
        energised: relay.energised,
        since: Some(timestamp(relay.since)),
        problem: relay.problem.clone(),
    }
}
