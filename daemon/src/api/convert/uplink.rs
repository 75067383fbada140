//! The uplink.

use ladewart_proto::v1;

use super::{hex, timestamp};
use crate::{
    site::View,
    smgw::{CertificateStatus, State, Status},
};

/// The uplink, with the backend connections that the site sees.
pub(in crate::api) fn uplink(status: &Status, view: &View) -> v1::UplinkStatus {
    let state = match status.state {
        State::Idle => v1::UplinkState::Idle,
        State::Up => v1::UplinkState::Up,
        State::Down => v1::UplinkState::Down,
    };
    let backends = view.evses.iter().filter(|evse| evse.backend_connected).count();
    v1::UplinkStatus {
        state: state.into(),
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
    }
}

fn certificate(certificate: &CertificateStatus) -> v1::Certificate {
    v1::Certificate {
        subject: certificate.subject.clone(),
        fingerprint: hex(&certificate.fingerprint),
        not_before: Some(timestamp(certificate.not_before)),
        not_after: Some(timestamp(certificate.not_after)),
    }
}
