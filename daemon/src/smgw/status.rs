//! What can be shown of the uplink.

use crate::time::Wall;

/// Whether the channel works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not tried yet.
    #[default]
    Idle,
    /// The last attempt reached its target, or connections stand.
    Up,
    /// The last attempt failed.
    Down,
}

/// The uplink at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether it works.
    pub state: State,
    /// Since when.
    pub since: Wall,
    /// `"socks5"` or `"direct"`.
    pub mode: &'static str,
    /// Address as configured; empty without gateway.
    pub gateway: String,
    /// Connections that stand.
    pub open: u32,
    /// Attempts so far.
    pub attempts: u64,
    /// Failures so far.
    pub failures: u64,
    /// Last failure in words, with its time.
    pub last_error: Option<(String, Wall)>,
    /// Name of the last TLS alert.
    pub last_alert: String,
    /// Last SOCKS5 reply, `"05 connection refused"`.
    pub last_reply: String,
    /// When the next attempt is due, while down.
    pub next_attempt: Option<Wall>,
    /// Version, suite and group of the last session.
    pub session: String,
    /// Our certificate towards the gateway.
    pub own: Option<CertificateStatus>,
    /// The gateway's certificate as last seen.
    pub peer: Option<CertificateStatus>,
}

/// What can be shown of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Distinguished name.
    pub subject: String,
    /// SHA-256 over the DER form.
    pub fingerprint: [u8; 32],
    /// Valid from.
    pub not_before: Wall,
    /// Valid until.
    pub not_after: Wall,
}
