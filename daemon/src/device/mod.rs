//! What hangs on the site's wires: devices described as data, and digital lines behind one trait.
//!
//! In: definition files, line names of the configuration. Out: [`Definition`]s for `meter`, lines for `contact`
//! and `relay`. Invariant: nothing in here decides; a body that fails says so in words and stays usable.

pub mod bus;
pub mod catalog;
pub mod definition;
pub mod desk;
pub mod http;
pub mod line;
pub mod mqtt;
pub mod output;
pub mod quantity;
pub mod reader;
pub mod remote;

pub use self::{
    catalog::{Catalog, DefinitionError, UnknownDevice},
    definition::Definition,
    quantity::{Kind, Quantity},
    reader::{AskError, Reader},
};
