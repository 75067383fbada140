//! A node's fuse, less what is kept back and what the rest draws behind it.

use super::{Bound, Budget, Cap, Scope};
use crate::{
    site::Site,
    time::Now,
    units::{Milliamps, PerPhase},
};

pub(super) fn cap(site: &Site, _now: Now, budget: &mut Budget) {
    for (n, node) in site.config.nodes.iter().enumerate() {
        // Generation behind the same fuse can stop within a second: it gives no room.
        let other = site.loads[n].map(|load| PerPhase(load.other.0.map(|ma| ma.max(Milliamps::ZERO))));
        let least = node.fuse.0.into_iter().min().unwrap_or_default();
        let mut reason = format!("fuse {} of {least}", node.id);
        if node.reserve > Milliamps::ZERO {
            reason = format!("{reason} less {} kept back", node.reserve);
        }
        if let Some(load) = other {
            let most = load.0.into_iter().max().unwrap_or_default();
            reason = format!("{reason} less other load of up to {}", tenths(most));
        }
        let other = other.unwrap_or_default();
        let room = PerPhase::from_fn(|p| (node.fuse[p] - node.reserve - other[p]).max(Milliamps::ZERO));
        budget.caps.push(Cap { node: n, bound: Bound::Current(room), scope: Scope::All, reason });
    }
}

/// Whole tenths of an ampere: more digits are noise.
fn tenths(current: Milliamps) -> Milliamps {
    Milliamps(current.0 / 100 * 100)
}
