//! `ladewartd`: turns what it hears (grid operator, supplier, meters, contacts, EVSEs) into one budget, the budget
//! into one plan, the plan into leased setpoints, and everything that counts into evidence.
//!
//! ```text
//! smgw, grid, ocpp, meter, contact → Event → site → policy → plan → evse, relay → journal → api
//! ```
//!
//! `site`, `policy` and `plan` are pure: no async, no I/O, no clock. `app` wires everything; it alone knows all
//! rooms.

pub mod clock;
pub mod config;
pub mod ids;
pub mod store;
pub mod time;
pub mod units;

pub mod identity;
pub mod tls;

pub mod contact;
pub mod grid;
pub mod meter;
pub mod ocpp;
pub mod smgw;

pub mod plan;
pub mod policy;
pub mod site;

pub mod control;

pub mod device;
pub mod evse;
pub mod relay;

pub mod api;
pub mod app;
pub mod journal;
pub mod telemetry;
