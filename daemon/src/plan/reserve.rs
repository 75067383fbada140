//! What EVSEs and devices may be drawing, whatever they were told last.

use crate::{
    config::RelayFunction,
    site::Site,
    time::Mono,
    units::{Milliamps, Watts},
};

/// What an EVSE may be drawing: nothing without a vehicle, else what it may be obeying.
#[must_use]
pub fn reserve(site: &Site, e: usize, now: Mono) -> Milliamps {
    let (facts, config) = (&site.evses[e], &site.config.evses[e]);
    if facts.connected.is_none() && facts.leash.untouched() {
        // Never heard of: it holds what it was left with.
        return config.failsafe;
    }
    if facts.vehicle_possible() { facts.leash.in_force(now, config.max) } else { Milliamps::ZERO }
}

/// What an EVSE whose setpoint was just lowered may be drawing until its car has followed.
pub(super) fn descending(site: &Site, e: usize, now: Mono) -> Milliamps {
    let facts = &site.evses[e];
    match facts.leash.last_change() {
        Some((at, before)) if facts.vehicle_possible() && now < at + site.config.control.settle => before,
        _ => Milliamps::ZERO,
    }
}

/// The current of an EVSE that does not listen now, if so.
pub(super) fn uncontrolled(site: &Site, e: usize, now: Mono) -> Option<Milliamps> {
    let facts = &site.evses[e];
    (facts.connected.is_none() || facts.leash.adrift(now)).then(|| reserve(site, e, now))
}

/// What a device may be drawing: what it is granted, what it was granted a moment ago, all when its relay does not
/// do as ordered.
#[must_use]
pub fn device(site: &Site, d: usize, now: Mono) -> Watts {
    let (facts, config) = (&site.devices[d], &site.config.devices[d]);
    if stuck(site, d).is_some() {
        return config.power;
    }
    let told = match facts.told {
        Some(Ok(told)) => told,
        _ => Watts::ZERO,
    };
    if let Some(relay) = relay_of(site, d) {
        let relay = &site.relays[relay];
        if relay.energised {
            return config.power;
        }
    }
    match facts.changed {
        Some(at) if now < at + site.config.control.settle => facts.granted.max(facts.before).max(told),
        _ => facts.granted.max(told),
    }
}

/// The relay that switches a device.
pub(super) fn relay_of(site: &Site, d: usize) -> Option<usize> {
    site.config.relays.iter().position(|r| r.function == RelayFunction::Device(d))
}

/// Why a device does not obey, if so.
pub(super) fn stuck(site: &Site, d: usize) -> Option<&str> {
    if site.config.devices[d].setpoint.is_some() {
        return match &site.devices[d].told {
            Some(Ok(_)) => None,
            Some(Err(problem)) => Some(problem.as_str()),
            None => Some("has not answered yet"),
        };
    }
    let relay = &site.relays[relay_of(site, d)?];
    (!relay.problem.is_empty()).then_some(relay.problem.as_str())
}
