//! The OCPP gateway.
mod frame;
mod queue;
mod route;
mod v16;
pub use queue::MIGRATIONS;
