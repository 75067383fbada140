//! Between the daemon's types and the interface's.
//!
//! In: views, records, statuses; fields of requests. Out: messages; typed values, or INVALID_ARGUMENT whose text
//! begins with the field's name. Pure: whoever converts an age hands in the time.

mod error;
mod evse;
mod grid;
mod identity;
mod journal;
mod meter;
mod site;
mod time;
mod transaction;
mod update;
mod uplink;

pub(super) use self::{
    error::{command, invalid, storage},
    evse::evse,
    grid::{change, command_only, limit, limit_id, minimum, set_limit, source},
    identity::{algorithm, identity, identity_error},
    journal::{entry, hex, kind},
    meter::meter,
    site::site,
    time::timestamp,
    transaction::{count, dead_letter, failed, id_tag, transaction, wall},
    update::{installation, slot, update_error},
    uplink::{report, uplink},
};
