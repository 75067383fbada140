//! What the backend's charging profiles allow an EVSE that we play towards it. An EVSE that speaks OCPP keeps to them
//! by itself.

use super::Budget;
use crate::{site::Site, units::Milliamps};

pub(super) fn cap(site: &Site, budget: &mut Budget) {
    for (share, facts) in budget.shares.iter_mut().zip(&site.evses) {
        if let Some(limit) = facts.backend_limit.map(|limit| limit.max(Milliamps::ZERO))
            && limit < share.most
        {
            share.most = limit;
            share.reason = format!("charging profile of the backend: {limit}");
        }
    }
}
