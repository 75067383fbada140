//! The uplink: the transparent CLS channel through the Smart Meter Gateway (BSI TR-03109-1, HAF3).

mod status;

pub use self::status::{CertificateStatus, State, Status};
