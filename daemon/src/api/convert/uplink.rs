//! The uplink.

use ladewart_proto::v1;

use super::{hex, timestamp};
use crate::{
    site::View,
    smgw::{CertificateStatus, Report, State, Status, Step, TargetStatus},
};

/// The uplink, with the backend connections that the site sees.
pub(in crate::api) fn uplink(status: &Status, view: &View) -> v1::UplinkStatus {
    let backends = view.evses.iter().filter(|evse| evse.backend_connected).count();
    v1::UplinkStatus {
        state: state(status.state).into(),
        mode: status.mode.to_owned(),
        gateway: status.gateway.clone(),
        since: Some(timestamp(status.since)),
        open_connections: status.open,
        attempts: status.attempts,
        failures: status.failures,
        last_error: status.last_error.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
        last_error_at: status.last_error.as_ref().map(|(_, at)| timestamp(*at)),
        last_alert: status.last_alert.clone(),
        last_proxy_reply: status.last_reply.clone(),
        next_attempt: status.next_attempt.map(timestamp),
        tls_session: status.session.clone(),
        own_certificate: status.own.as_ref().map(certificate),
        gateway_certificate: status.peer.as_ref().map(certificate),
        backend_connections: u32::try_from(backends).unwrap_or(u32::MAX),
        oldest_session: status.oldest_session.map(timestamp),
        next_renewal: status.next_renewal.map(timestamp),
        warnings: status.warnings.clone(),
        targets: status.targets.iter().map(target).collect(),
        refused_connections: status.refused,
        last_refusal: status.last_refusal.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
        last_refusal_at: status.last_refusal.as_ref().map(|(_, at)| timestamp(*at)),
    }
}

fn state(state: State) -> v1::UplinkState {
    match state {
        State::Idle => v1::UplinkState::Idle,
        State::Up => v1::UplinkState::Up,
        State::Down => v1::UplinkState::Down,
    }
}

fn target(target: &TargetStatus) -> v1::UplinkTarget {
    v1::UplinkTarget {
        name: target.name.clone(),
        state: state(target.state).into(),
        open_connections: target.open,
        last_error: target.last_error.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
        last_error_at: target.last_error.as_ref().map(|(_, at)| timestamp(*at)),
    }
}

/// One step of a test.
pub(in crate::api) fn report(report: Report) -> v1::TestUplinkResponse {
    let step = match report.step {
        Step::Link => v1::UplinkStep::Link,
        Step::Address => v1::UplinkStep::Address,
        Step::Tcp => v1::UplinkStep::Tcp,
        Step::Tls => v1::UplinkStep::Tls,
        Step::Proxy => v1::UplinkStep::Proxy,
        Step::Target => v1::UplinkStep::Target,
        Step::Application => v1::UplinkStep::Application,
    };
    v1::TestUplinkResponse { step: step.into(), ok: report.ok, detail: report.detail, advice: report.advice }
}

pub(super) fn certificate(certificate: &CertificateStatus) -> v1::Certificate {
    v1::Certificate {
        subject: certificate.subject.clone(),
        fingerprint: hex(&certificate.fingerprint),
        not_before: Some(timestamp(certificate.not_before)),
        not_after: Some(timestamp(certificate.not_after)),
    }
}
