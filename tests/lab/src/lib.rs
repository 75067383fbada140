//! A simulated site and its surroundings, for the demo, the benchmarks and the end-to-end tests.
//!
//! Everything binds a free loopback port, stops when dropped, can be told to misbehave and keeps a log. The lab
//! does not link the daemon: it starts the real one as its own process and speaks to it as the world does.

pub mod backend;
pub mod clock;
pub mod connection;
pub mod evse;
pub mod frame;
pub mod gateway;
pub mod journal;
pub mod log;
pub mod meter;
pub mod observer;
pub mod operator;
pub mod pki;
pub mod process;
pub mod site;
mod steps;
pub mod wire;
