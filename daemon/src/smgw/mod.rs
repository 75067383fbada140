//! The uplink: the transparent CLS channel through the Smart Meter Gateway (BSI TR-03109-1, HAF3).

mod dial;
mod status;

pub use self::{
    dial::{BoxedIo, Dial, DialError, Io},
    status::{CertificateStatus, State, Status},
};
