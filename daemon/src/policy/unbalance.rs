//! How far controlled devices may load the phases of the grid connection differently (VDE-AR-N 4100 no. 5.5: 4.6 kVA).
//!
//! A car of which it is not known yet how many phases it uses is held to the limit by itself; once it is known, all that
//! load one phase and not another are held to it together. Nothing is set off against loads on the other phase: they
//! may stop at any time, and this site does not answer within the 100 ms that a symmetry device must.

use super::{Bound, Budget, Cap, Scope, Want};
use crate::site::Site;

pub(super) fn cap(site: &Site, budget: &mut Budget) {
    for (n, node) in site.config.nodes.iter().enumerate() {
        let Some(limit) = node.unbalance else { continue };
        let reason = format!("unbalance of at most {limit} at {}", node.id);
        budget.caps.push(Cap { node: n, bound: Bound::Unbalance(limit), scope: Scope::All, reason });
        for e in site.behind(n) {
            let unknown = site.evses[e].mask.is_none() && site.config.evses[e].wiring.count() > 1;
            let share = &mut budget.shares[e];
            // Where there is no car there is nothing to find out.
            if unknown && share.want != Want::Nothing && limit < share.most {
                share.most = limit;
                share.reason = format!("{limit} until it is known how many phases the car uses");
            }
        }
    }
}
