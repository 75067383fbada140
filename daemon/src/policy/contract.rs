//! The power agreed for a node: everything behind it counts.

use super::{Bound, Budget, Cap, Scope};
use crate::{site::Site, time::Now, units::Watts};

pub(super) fn cap(site: &Site, now: Now, budget: &mut Budget) {
    for (n, node) in site.config.nodes.iter().enumerate() {
        let Some(contract) = node.contract else { continue };
        let other = site.other_power(n, now.mono).unwrap_or_default().max(Watts::ZERO);
        let reason = format!("contract power {} of {contract} less other load of {other}", node.id);
        let room = (contract - other).max(Watts::ZERO);
        budget.caps.push(Cap { node: n, bound: Bound::Power(room), scope: Scope::All, reason });
    }
}
