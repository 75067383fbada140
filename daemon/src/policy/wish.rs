//! What charging rules wish for an EVSE: a cap, a class, a deadline.

use super::Budget;
use crate::{
    site::Site,
    time::Wall,
    units::{Milliamps, WattHours},
};

/// The class of an EVSE of which no rule says anything. 0 goes first.
pub const USUAL: u8 = 100;

/// Energy that shall have been charged by a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// By when.
    pub at: Wall,
    /// What is missing now.
    pub missing: WattHours,
}

/// The outcome of all rules for one EVSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The most it may draw per phase; `None`: its own maximum.
    pub cap: Option<Milliamps>,
    /// Order of service when not all fit: lower classes first.
    pub class: u8,
    /// What it shall have got by when.
    pub deadline: Option<Deadline>,
    /// Why, in words; shown where the cap binds.
    pub reason: String,
}

impl Default for Wish {
    fn default() -> Self {
        Self { cap: None, class: USUAL, deadline: None, reason: String::new() }
    }
}

pub(super) fn cap(site: &Site, budget: &mut Budget) {
    for (share, wish) in budget.shares.iter_mut().zip(&site.wishes) {
        if wish.class != USUAL {
            share.class = wish.class;
        }
        share.deadline = wish.deadline;
        if let Some(cap) = wish.cap
            && cap < share.most
        {
            share.most = cap.max(Milliamps::ZERO);
            share.reason.clone_from(&wish.reason);
        }
    }
}
