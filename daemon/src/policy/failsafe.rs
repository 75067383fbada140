//! A meter that grows old: nothing rises while it is stale; at its loss the EVSEs behind it go to their failsafe
//! values.

use super::Budget;
use crate::{
    site::{Site, view::Quality},
    time::Now,
    units::Milliamps,
};

pub(super) fn cap(site: &Site, now: Now, budget: &mut Budget) {
    for (n, node) in site.config.nodes.iter().enumerate() {
        let Some(meter) = node.meter else { continue };
        let quality = site.meters[meter].quality(&site.config.control, now.mono);
        if quality == Quality::Good {
            continue;
        }
        let name = &site.config.meters[meter].id;
        for e in site.behind(n) {
            let config = &site.config.evses[e];
            let (most, reason) = match quality {
                Quality::Stale | Quality::Implausible => (
                    site.evses[e].leash.newest().map_or(Milliamps::ZERO, |s| s.limit).max(config.failsafe),
                    if quality == Quality::Stale {
                        format!("meter {name} is stale: nothing rises")
                    } else {
                        format!("meter {name} is implausible: nothing rises")
                    },
                ),
                _ => (config.failsafe, format!("meter {name} is lost: failsafe value")),
            };
            let share = &mut budget.shares[e];
            if most < share.most {
                share.most = most;
                share.reason = reason;
            }
        }
    }
}
