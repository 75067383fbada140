//! A node's fuse, less what the rest draws behind it.

use super::{Bound, Budget, Cap};
use crate::{
    site::Site,
    time::Now,
    units::{Milliamps, PerPhase},
};

pub(super) fn cap(site: &Site, _now: Now, budget: &mut Budget) {
    for (n, node) in site.config.nodes.iter().enumerate() {
        // Generation behind the same fuse can stop within a second: it gives no room.
        let other = site.loads[n].map(|load| PerPhase(load.other.0.map(|ma| ma.max(Milliamps::ZERO))));
        let reason = match other {
            Some(load) => {
                let most = load.0.into_iter().max().unwrap_or_default();
                format!("fuse {} of {} less other load of up to {}", node.id, node.fuse, tenths(most))
            }
            None => format!("fuse {} of {}", node.id, node.fuse),
        };
        let other = other.unwrap_or_default();
        let room = PerPhase::from_fn(|p| (node.fuse - other[p]).max(Milliamps::ZERO));
        budget.caps.push(Cap { node: n, bound: Bound::Current(room), reason });
    }
}

/// Whole tenths of an ampere: more digits are noise.
fn tenths(current: Milliamps) -> Milliamps {
    Milliamps(current.0 / 100 * 100)
}
