//! `ladewartd`: turns what it hears (grid operator, supplier, meters, contacts, EVSEs) into one budget, the budget
//! into one plan, the plan into leased setpoints, and everything that counts into evidence.
//!
//! ```text
//! smgw, grid, ocpp, meter, contact → Event → site → policy → plan → evse, relay → journal → api
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`app`] | builds every task and wires the channels; the only file that knows all rooms |
//! | [`config`] | TOML → typed values, or an error with file, line, field and mend |
//! | [`clock`], [`mod@time`] | the only place that reads a clock; points in time as values |
//! | [`units`], [`ids`] | quantities and names as types |
//! | [`store`] | the one writer of the database; a result is seen after its sync |
//! | [`identity`], [`tls`] | keys and certificates; TLS profiles and trust |
//! | [`smgw`] | the uplink through the Smart Meter Gateway |
//! | [`grid`] | power limits and their life |
//! | [`tariff`], [`variable`] | what energy costs when; numbers that are set from outside |
//! | [`formula`] | expressions with units and bounded cost |
//! | [`ocpp`] | EVSEs and backend: one route per station, durable transactions |
//! | [`meter`], [`contact`] | readings and debounced inputs |
//! | [`site`] | the facts and their age; the only mutable state |
//! | [`policy`] | facts → budget, one file per rule |
//! | [`rules`] | who may charge how much, when: wishes for the budget |
//! | [`plan`] | budget → setpoints with lease and reason |
//! | [`control`] | the loop; owns the site |
//! | [`evse`], [`relay`], [`device`] | what goes out when; lines and definitions of devices |
//! | [`evidence`], [`journal`] | events of power reduction; hash-chained, signed record |
//! | [`explain`] | why an EVSE gets what it gets |
//! | [`api`] | gRPC and who may do what |
//! | [`sunspec`] | the site as a SunSpec device, off unless configured |
//! | [`update`] | the device's own software: bundles to RAUC |
//! | [`telemetry`] | logs |
//!
//! `site`, `policy` and `plan` are pure: no async, no I/O, no clock; a test holds this.

pub mod clock;
pub mod config;
pub mod ids;
pub mod store;
pub mod time;
pub mod units;

pub mod identity;
pub mod tls;

pub mod contact;
pub mod formula;
pub mod grid;
pub mod meter;
pub mod ocpp;
pub mod smgw;
pub mod tariff;
pub mod variable;

pub mod rules;

pub mod plan;
pub mod policy;
pub mod site;

pub mod control;

pub mod device;
pub mod evidence;
pub mod evse;
pub mod explain;
pub mod relay;

pub mod api;
pub mod app;
pub mod journal;
pub mod remote;
pub mod sunspec;
pub mod telemetry;
pub mod update;
