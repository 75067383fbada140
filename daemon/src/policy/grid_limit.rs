//! The smallest grid limit of each node (EnWG §14a; BNetzA BK6-22-300 Anlage 1 no. 4.6: the operator's reduction
//! goes before every market control).

use super::{Bound, Budget, Cap};
use crate::{grid::Record, site::Site, time::Now};

pub(super) fn cap(site: &Site, now: Now, budget: &mut Budget) {
    for n in 0..site.config.nodes.len() {
        let smallest: Option<&Record> = site
            .limits
            .in_force(now.wall)
            .filter(|r| site.node(&r.limit.node) == Some(n))
            .min_by_key(|r| r.limit.watts);
        if let Some(record) = smallest {
            let limit = &record.limit;
            budget.caps.push(Cap {
                node: n,
                bound: Bound::Power(limit.watts),
                reason: format!("grid limit {} of {} by {}", limit.id, limit.watts, limit.issuer),
            });
        }
    }
}
