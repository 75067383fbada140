//! Facts → [`Budget`]: one file per rule, each gives a cap and its reason. Pure: no async, no I/O, no clock.
//!
//! In: the site and the time. Out: what each node and each EVSE may draw at most, and who wants to draw. Invariant: a
//! rule only ever takes away; the smallest cap wins, whatever order the rules run in.

mod backend;
mod contract;
mod demand;
mod failsafe;
mod fuse;
mod grid_limit;
mod unbalance;
mod wish;

pub use self::wish::{Deadline, USUAL, Wish};
use crate::{
    site::Site,
    time::Now,
    units::{Milliamps, PerPhase, Watts},
};

/// How much an EVSE wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// No vehicle that could charge.
    Nothing,
    /// A vehicle that takes nothing at present: enough to begin again.
    Least,
    /// As much as it gets.
    All,
}

/// What a cap bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The sum of currents on each phase.
    Current(PerPhase<Milliamps>),
    /// The sum of powers.
    Power(Watts),
    /// How much more one phase may carry than another.
    Unbalance(Milliamps),
}

/// Whom a cap concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that is controlled here.
    All,
    /// Controllable devices in the sense of EnWG §14a: not what is open to the public.
    Controllable,
}

/// A bound on everything behind a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// Index of the node.
    pub node: usize,
    /// The bound.
    pub bound: Bound,
    /// Whom it concerns.
    pub scope: Scope,
    /// In words, for people.
    pub reason: String,
}

impl Cap {
    /// Whether it is a power limit from outside.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.scope == Scope::Controllable && matches!(self.bound, Bound::Power(_))
    }
}

/// What one device may have by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceShare {
    /// The most it may get.
    pub most: Watts,
    /// Why not more, in words.
    pub reason: String,
    /// Order of service when not all fit: lower classes first.
    pub class: u8,
}

/// What one EVSE wants and may have by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What it wants.
    pub want: Want,
    /// The most it may get.
    pub most: Milliamps,
    /// Why not more, in words.
    pub reason: String,
    /// Order of service when not all fit: lower classes first.
    pub class: u8,
    /// What it shall have got by when.
    pub deadline: Option<Deadline>,
}

/// Everything that binds the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Bounds on nodes.
    pub caps: Vec<Cap>,
    /// One per EVSE.
    pub shares: Vec<Share>,
    /// One per device.
    pub devices: Vec<DeviceShare>,
}

/// Applies every rule.
#[must_use]
pub fn budget(site: &Site, now: Now) -> Budget {
    let mut budget =
        Budget { caps: Vec::new(), shares: demand::shares(site), devices: demand::devices(site) };
    wish::cap(site, &mut budget);
    backend::cap(site, &mut budget);
    fuse::cap(site, now, &mut budget);
    contract::cap(site, now, &mut budget);
    unbalance::cap(site, &mut budget);
    grid_limit::cap(site, now, &mut budget);
    failsafe::cap(site, now, &mut budget);
    budget
}
