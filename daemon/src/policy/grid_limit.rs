//! The smallest grid limit of each node (EnWG §14a; BNetzA BK6-22-300 Anlage 1 no. 4.6: the operator's reduction
//! goes before every market control), and the gradual return after it (no. 4.3).
//!
//! A limit bounds the *netzwirksam* draw of the controllable devices (no. 2.3): what is generated on the site and not
//! used by others may be drawn beside it.

use super::{Bound, Budget, Cap, Scope};
use crate::{site::Site, time::Now, units::Watts};

pub(super) fn cap(site: &Site, now: Now, budget: &mut Budget) {
    for n in 0..site.config.nodes.len() {
        let smallest = site.smallest_limit(n, now);
        let returning = site.returns[n].at(now.mono);
        let (watts, mut reason) = match (smallest, returning) {
            (Some((limit, _)), Some(back)) if back < limit => (back, coming_back(back)),
            (Some((limit, reason)), _) => (limit, reason),
            (None, Some(back)) => (back, coming_back(back)),
            (None, None) => continue,
        };
        let own = site.own_generation(n, now.mono);
        if own > Watts::ZERO {
            reason = format!("{reason} and {own} of the site's own generation");
        }
        budget.caps.push(Cap {
            node: n,
            bound: Bound::Power(watts + own),
            scope: Scope::Controllable,
            reason,
        });
    }
}

fn coming_back(watts: Watts) -> String {
    format!("gradual return after a grid limit, now at {watts}")
}
