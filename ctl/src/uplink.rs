//! `ladewartctl uplink`.

use clap::Subcommand;
use ladewart_proto::v1::{self, UplinkState, uplink_service_client::UplinkServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    table::pairs,
    words::{self, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Uplink {
    /// Whether the channel works, what went wrong last, and how long the certificates hold.
    Status,
}

impl Uplink {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self::Status = self;
        let mut client = UplinkServiceClient::new(session.channel().await?);
        let answer = session.call(client.get_uplink_status(v1::GetUplinkStatusRequest {})).await?;
        session.show("GetUplinkStatusResponse", &answer, |style| whole(style, answer.uplink.as_ref())).await
    }
}

const NONE: &str = "This site has no uplink.";

fn plural(count: u32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn way(uplink: &v1::UplinkStatus) -> String {
    if uplink.gateway.is_empty() {
        "without a gateway".to_owned()
    } else {
        format!("through the gateway {}", words::clean(&uplink.gateway))
    }
}

/// In one sentence.
pub(crate) fn sentence(style: &Style, uplink: Option<&v1::UplinkStatus>) -> String {
    let Some(uplink) = uplink else {
        return "none".to_owned();
    };
    let since = style.since(uplink.since.as_ref()).map(|span| format!(" for {span}")).unwrap_or_default();
    match uplink.state() {
        UplinkState::Up => format!(
            "up{since} {}: {}, {} at the backend",
            way(uplink),
            plural(uplink.open_connections, "connection", "connections"),
            plural(uplink.backend_connections, "EVSE", "EVSEs"),
        ),
        UplinkState::Down => {
            let next = style.until(uplink.next_attempt.as_ref());
            let next = next.map(|span| format!("; next attempt in {span}")).unwrap_or_default();
            format!("DOWN{since} {}: {}{next}", way(uplink), words::text(&uplink.last_error))
        }
        UplinkState::Idle => format!("not tried yet, {}", way(uplink)),
        UplinkState::Unspecified => format!("in an unknown state, {}", way(uplink)),
    }
}

fn certificate(style: &Style, certificate: Option<&v1::Certificate>) -> String {
    let Some(certificate) = certificate else {
        return String::new();
    };
    let holds = match style.until(certificate.not_after.as_ref()) {
        Some(left) => format!("holds for {left}, until {}", style.time(certificate.not_after.as_ref())),
        None => format!("EXPIRED {}", style.time(certificate.not_after.as_ref())),
    };
    let early =
        style.until(certificate.not_before.as_ref()).map(|span| format!("; NOT YET VALID, for {span}"));
    format!(
        "{}; {holds}{}\nSHA-256 {}",
        words::text(&certificate.subject),
        early.unwrap_or_default(),
        words::text(&certificate.fingerprint)
    )
}

/// Everything.
pub(crate) fn whole(style: &Style, uplink: Option<&v1::UplinkStatus>) -> String {
    let Some(status) = uplink else {
        return NONE.to_owned();
    };
    let error = match status.last_error.as_str() {
        "" => String::new(),
        error => format!("{} ({})", words::clean(error), style.time(status.last_error_at.as_ref())),
    };
    let rows = vec![
        ("Uplink", sentence(style, uplink)),
        ("Mode", words::text(&status.mode)),
        ("Since", style.time(status.since.as_ref())),
        ("Attempts", format!("{}, of which {} failed", status.attempts, status.failures)),
        ("Last error", error),
        ("Last TLS alert", words::text(&status.last_alert)),
        ("Last proxy reply", words::text(&status.last_proxy_reply)),
        ("Next attempt", style.time(status.next_attempt.as_ref())),
        ("TLS session", words::text(&status.tls_session)),
        ("Our certificate", certificate(style, status.own_certificate.as_ref())),
        ("Gateway certificate", certificate(style, status.gateway_certificate.as_ref())),
    ];
    pairs(style, rows)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn up() -> v1::UplinkStatus {
        v1::UplinkStatus {
            state: UplinkState::Up.into(),
            mode: "socks5".into(),
            gateway: "192.168.17.2:4433".into(),
            since: Style::ago(7_500),
            open_connections: 2,
            attempts: 4,
            failures: 1,
            last_proxy_reply: "00 succeeded".into(),
            tls_session: "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 secp256r1".into(),
            own_certificate: Some(v1::Certificate {
                subject: "CN=site-1".into(),
                fingerprint: "ab".repeat(32),
                not_before: Style::ago(86_400),
                not_after: Style::ago(-86_400 * 90),
            }),
            gateway_certificate: Some(v1::Certificate {
                subject: "CN=EXXX0011223344".into(),
                fingerprint: "cd".repeat(32),
                not_before: Style::ago(-60),
                not_after: Style::ago(60),
            }),
            backend_connections: 1,
            ..Default::default()
        }
    }

    fn down() -> v1::UplinkStatus {
        v1::UplinkStatus {
            state: UplinkState::Down.into(),
            since: Style::ago(75),
            last_error: "proxy: the gateway refused the connection to backend:9000".into(),
            last_error_at: Style::ago(15),
            last_alert: "handshake_failure".into(),
            last_proxy_reply: "05 connection refused".into(),
            next_attempt: Style::ago(-17),
            ..up()
        }
    }

    #[test]
    fn a_working_uplink() {
        insta::assert_snapshot!(whole(&Style::fixed(), Some(&up())));
    }

    #[test]
    fn a_broken_uplink() {
        insta::assert_snapshot!(whole(&Style::fixed(), Some(&down())));
    }

    #[test]
    fn a_site_without_uplink_says_so() {
        assert_eq!(whole(&Style::fixed(), None), "This site has no uplink.");
    }
}
