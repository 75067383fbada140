//! What belongs to OCPP 1.6 alone: its messages as far as we act on them, and who answers what.

pub(crate) mod draw;
pub(crate) mod message;
pub(crate) mod order;
pub(crate) mod table;
