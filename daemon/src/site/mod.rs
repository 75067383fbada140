//! The facts of the site and their age. The only mutable state; one owner, `control`.
//!
//! In: [`Event`]s with the time they are applied at. Out: facts for `policy`, pictures ([`View`]) for `api`.
//! Invariant: a fact is never re-stamped: its age is that of the reading, not of the reader. Pure: no async, no
//! I/O, no clock.

pub mod event;
pub mod view;

pub use self::{event::Event, view::View};
