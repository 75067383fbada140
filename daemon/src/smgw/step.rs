//! The steps of the way to a target, and how each can fail.

use std::{fmt, io};

use super::socks::Reply;
use crate::tls::{Alert, Fault};

/// A step of the way, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The interface on the HAN: there, up, separated from every other network; and our own identity.
    Link,
    /// The gateway's address.
    Address,
    /// The connection to it.
    Tcp,
    /// The session with it.
    Tls,
    /// Its proxy's answer.
    Proxy,
    /// Whoever is behind it, TLS inside included.
    Target,
    /// What runs there.
    Application,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Proxy => "proxy",
            Self::Target => "target",
            Self::Application => "application",
        })
    }
}

/// The kind of a failure, as far as the next thing to do depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The interface is missing, down, or not separated; there is no identity.
    Ground,
    /// There is nobody, or nobody of that name.
    Nobody,
    /// Said no.
    Refused,
    /// No answer in time.
    Silent,
    /// Closed without an answer.
    Closed,
    /// Should have come and did not.
    Absent,
    /// Its certificate is not the right one.
    Stranger,
    /// Its certificate has ended or not begun.
    Untimely,
    /// Does not take our certificate.
    Unknown,
    /// Does not speak what we speak.
    Language,
    /// Something else.
    Other,
}

/// What an attempt failed of.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) cause: Cause,
    /// The step and the reason.
    pub(super) text: String,
    pub(super) alert: Option<Alert>,
    pub(super) reply: Option<Reply>,
}

impl Failure {
    pub(super) fn new(step: Step, cause: Cause, text: String) -> Self {
        Self { step, cause, text, alert: None, reply: None }
    }

    /// Of a stream that carries TLS; `before` names the step in words.
    pub(super) fn of_stream(step: Step, before: &str, error: &io::Error) -> Self {
        let fault = Fault::new(error);
        Self {
            step,
            cause: cause(&fault, error),
            text: format!("{before}: {fault}"),
            alert: fault.alert,
            reply: None,
        }
    }

    /// Whether it lies before the gateway's proxy: it holds for every target.
    pub(super) fn is_shared(&self) -> bool {
        self.step <= Step::Tls
    }
}

fn cause(fault: &Fault, error: &io::Error) -> Cause {
    use crate::tls::Direction::{Received, Sent};
    match fault.alert {
        Some(Alert { direction: Received, name }) => match name {
            "unknown_ca"
            | "bad_certificate"
            | "certificate_unknown"
            | "unsupported_certificate"
            | "access_denied"
            | "certificate_required"
            | "certificate_expired"
            | "certificate_revoked" => Cause::Unknown,
            _ => Cause::Language,
        },
        Some(Alert { direction: Sent, name }) => match name {
            "handshake_failure" | "protocol_version" => Cause::Language,
            "certificate_expired" => Cause::Untimely,
            _ => Cause::Stranger,
        },
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Cause::Closed,
            io::ErrorKind::InvalidData => Cause::Language,
            io::ErrorKind::TimedOut => Cause::Silent,
            _ => Cause::Other,
        },
    }
}

/// What to do next, for who stands before the gateway.
pub(super) fn advice(step: Step, cause: Cause, reply: Option<Reply>) -> &'static str {
    match (step, cause) {
        (Step::Link, _) => "Mend what the line says about the interface or the identity, then test again.",
        (Step::Address, _) => {
            "Ask the gateway administrator for the gateway's HAN address and write it as uplink.gateway, or check \
             the name service."
        }
        (Step::Tcp, Cause::Refused) => {
            "The gateway is there but does not listen on this port: ask the gateway administrator whether the CLS \
             profile is active, and for its port."
        }
        (Step::Tcp, Cause::Nobody | Cause::Silent) => {
            "Check the cable to the gateway's HAN or CLS port, our own address on that network and the gateway's \
             address."
        }
        (Step::Tcp, Cause::Absent) => {
            "Ask the gateway administrator whether the gateway is to connect to this device, and to which address and \
             port, and check the cable."
        }
        (Step::Tcp, Cause::Stranger) => {
            "Somebody came and was turned away; if it was the gateway, compare what the line says with uplink.trust and \
             with our certificate (`ladewartctl identity list`)."
        }
        (Step::Tls, Cause::Unknown) => {
            "Give our certificate (`ladewartctl identity list`) to the gateway administrator: the gateway knows \
             another one."
        }
        (Step::Tls, Cause::Stranger) => {
            "Compare the fingerprint with the gateway's papers; if it is right, pin it, or import the CA that \
             issued it, under uplink.trust."
        }
        (Step::Tls, Cause::Untimely) => {
            "Check this device's clock (`ladewartctl status`); if it is right, ask the gateway administrator to \
             renew the gateway's certificate."
        }
        (Step::Tls, Cause::Language) => {
            "Ask the gateway administrator which TLS versions, suites and curves the CLS profile allows, and check \
             the port."
        }
        (Step::Tls, Cause::Silent | Cause::Closed) => {
            "The port answers but no TLS session comes about: check that it is the gateway's CLS port and not \
             another service."
        }
        (Step::Proxy, Cause::Refused) => match reply.map(|reply| reply.0) {
            Some(2) => {
                "Ask the gateway administrator to add this target, name and port as written, to the CLS profile."
            }
            Some(5) => {
                "The gateway reaches the target's host, but nobody listens there: ask the operator of the target."
            }
            Some(7 | 8) => {
                "Write the target as a DNS name or an IPv4 address: the gateway's proxy takes no other."
            }
            _ => "Ask the gateway administrator whether the gateway can resolve and reach this target.",
        },
        (Step::Proxy, Cause::Language) => {
            "The gateway's proxy is not SOCKS5: ask the gateway administrator for its format; mode = \"sni\" may be \
             the right one."
        }
        (Step::Proxy, _) => "Ask the gateway administrator whether the proxy of the CLS profile runs.",
        (Step::Target, Cause::Stranger) => {
            "Check backend.url and backend.ca against what the operator of the target gave you."
        }
        (Step::Target, Cause::Untimely) => {
            "Check this device's clock; if it is right, ask the operator of the target to renew their certificate."
        }
        (Step::Target, Cause::Language) => {
            "Check backend.url: wss:// needs a target that speaks TLS; ask its operator which one is right."
        }
        (Step::Target, Cause::Unknown) => {
            "Ask the operator of the target which certificate they expect from us."
        }
        (Step::Target, _) => "The gateway's side works: ask the operator of the target whether it runs.",
        (Step::Application, _) => {
            "The way works: check the path in backend.url, and ask the operator of the target what it serves there."
        }
        _ => "Test again; if it stays, send the lines above to the gateway administrator.",
    }
}
