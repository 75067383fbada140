//! What belongs to OCPP 2.0.1 and 2.1: their messages as far as we act on them, and who answers what.

pub(crate) mod message;
pub(crate) mod needs;
pub(crate) mod order;
pub(crate) mod table;
