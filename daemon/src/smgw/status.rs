//! What can be shown of the uplink.

use std::time::Duration;

use crate::{clock, time::Wall};

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
    /// `"socks5"`, `"sni"`, `"listen"` or `"direct"`.
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
    /// When the oldest connection that stands began.
    pub oldest_session: Option<Wall>,
    /// When the first of them is to be replaced.
    pub next_renewal: Option<Wall>,
    /// Those who connected to us and were turned away.
    pub refused: u64,
    /// Why the last of them was, and when.
    pub last_refusal: Option<(String, Wall)>,
    /// Each target that was asked for.
    pub targets: Vec<TargetStatus>,
    /// What wants attention before it becomes a failure: certificates that run out, a clock that is not set.
    pub warnings: Vec<String>,
}

/// One target behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetStatus {
    /// As configured, or host and port.
    pub name: String,
    /// Whether it is reached.
    pub state: State,
    /// Connections that stand.
    pub open: u32,
    /// Last failure in words, with its time.
    pub last_error: Option<(String, Wall)>,
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

const DAY: Duration = Duration::from_secs(86_400);

/// Days before its end at which a certificate is warned of, again and again.
const NOTICE: [u32; 3] = [7, 30, 90];

/// Sentences that stay the same until something changes that a person should hear of.
pub(super) fn warnings(status: &Status, now: Wall) -> Vec<String> {
    if !clock::plausible(now) {
        let text = "the clock is not set, so the dates of certificates are not judged";
        return vec![text.to_owned()];
    }
    let own = status.own.as_ref().map(|certificate| ("our certificate", certificate));
    let peer = status.peer.as_ref().map(|certificate| ("the gateway's certificate", certificate));
    let mut warnings = Vec::new();
    for (whose, certificate) in own.into_iter().chain(peer) {
        let end = certificate.not_after;
        if now < certificate.not_before {
            warnings.push(format!("{whose} is not valid before {}", certificate.not_before));
        } else if end <= now {
            warnings.push(format!("{whose} ended on {end}"));
        } else if let Some(days) = NOTICE.into_iter().find(|days| end <= now + DAY * *days) {
            warnings.push(format!("{whose} ends in less than {days} days, on {end}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_warned_of_months_ahead() {
        let end = Wall::parse("2028-06-30T12:00:00Z").unwrap();
        let own = CertificateStatus {
            subject: "CN=cls".to_owned(),
            fingerprint: [0; 32],
            not_before: Wall::parse("2026-12-01T00:00:00Z").unwrap(),
            not_after: end,
        };
        let status = Status { own: Some(own), ..Status::default() };
        let at = |days: u32| warnings(&status, end - DAY * days).join("");
        assert_eq!(at(91), "");
        assert_eq!(at(90), "our certificate ends in less than 90 days, on 2028-06-30T12:00:00.000Z");
        assert_eq!(at(31), at(90), "one warning, not one a day");
        assert_eq!(at(30), "our certificate ends in less than 30 days, on 2028-06-30T12:00:00.000Z");
        assert_eq!(at(3), "our certificate ends in less than 7 days, on 2028-06-30T12:00:00.000Z");
        assert_eq!(at(0), "our certificate ended on 2028-06-30T12:00:00.000Z");
        let early = Wall::parse("2026-11-30T00:00:00Z").unwrap();
        assert_eq!(
            warnings(&status, early),
            ["our certificate is not valid before 2026-12-01T00:00:00.000Z"]
        );
        assert_eq!(
            warnings(&status, Wall(0)),
            ["the clock is not set, so the dates of certificates are not judged"]
        );
    }
}
