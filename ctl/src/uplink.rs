//! `ladewartctl uplink`.

mod test;

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
    /// Walks the way to the backend step by step, and says what to do at the first step that fails.
    Test(test::Test),
    /// Takes on the certificate that the gateway shows next; the configuration must allow it (tofu = true).
    Trust(test::Trust),
}

impl Uplink {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Status => {}
            Self::Test(test) => return test.run(session).await,
            Self::Trust(trust) => return trust.run(session).await,
        }
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
    match uplink.mode.as_str() {
        "listen" => "through the gateway, which connects to us".to_owned(),
        _ if uplink.gateway.is_empty() => "without a gateway".to_owned(),
        _ => format!("through the gateway {}", words::clean(&uplink.gateway)),
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

fn age(style: &Style, time: Option<&prost_types::Timestamp>) -> String {
    style.since(time).map(|span| format!("{span} old, since {}", style.time(time))).unwrap_or_default()
}

fn ahead(style: &Style, time: Option<&prost_types::Timestamp>) -> String {
    style.until(time).map(|span| format!("in {span}, {}", style.time(time))).unwrap_or_default()
}

fn refused(style: &Style, status: &v1::UplinkStatus) -> String {
    match status.refused_connections {
        0 => String::new(),
        n => format!(
            "{}, the last one {}: {}",
            plural(u32::try_from(n).unwrap_or(u32::MAX), "connection", "connections"),
            style.time(status.last_refusal_at.as_ref()),
            words::clean(&status.last_refusal)
        ),
    }
}

/// One line each; with a single one the rest of the status says it all.
fn targets(targets: &[v1::UplinkTarget]) -> String {
    if targets.len() < 2 {
        return String::new();
    }
    let line = |target: &v1::UplinkTarget| {
        let state = match target.state() {
            UplinkState::Up => plural(target.open_connections, "connection", "connections"),
            UplinkState::Down => format!("DOWN: {}", words::clean(&target.last_error)),
            UplinkState::Idle | UplinkState::Unspecified => "not tried yet".to_owned(),
        };
        format!("{}: {state}", words::text(&target.name))
    };
    targets.iter().map(line).collect::<Vec<_>>().join("\n")
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
        ("Oldest session", age(style, status.oldest_session.as_ref())),
        ("Next renewal", ahead(style, status.next_renewal.as_ref())),
        ("Refused", refused(style, status)),
        ("Our certificate", certificate(style, status.own_certificate.as_ref())),
        ("Gateway certificate", certificate(style, status.gateway_certificate.as_ref())),
        ("Targets", targets(&status.targets)),
        ("Warnings", status.warnings.iter().map(|text| words::clean(text)).collect::<Vec<_>>().join("\n")),
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
            oldest_session: Style::ago(7_400),
            next_renewal: Style::ago(7_400 - 47 * 3600),
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
            oldest_session: None,
            next_renewal: None,
            refused_connections: 3,
            last_refusal: "TLS with 192.168.17.9:4711: the peer closed the connection without an alert"
                .into(),
            last_refusal_at: Style::ago(30),
            targets: vec![
                v1::UplinkTarget {
                    name: "backend".into(),
                    state: UplinkState::Down.into(),
                    last_error: "proxy reply 05 connection refused".into(),
                    ..Default::default()
                },
                v1::UplinkTarget {
                    name: "operator".into(),
                    state: UplinkState::Up.into(),
                    open_connections: 1,
                    ..Default::default()
                },
            ],
            warnings: vec!["our certificate ends in less than 30 days, on 2026-12-20T12:00:00.000Z".into()],
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
    fn each_mode_says_how_the_gateway_comes_in() {
        let said = |mode: &str, gateway: &str| {
            let status = v1::UplinkStatus { mode: mode.into(), gateway: gateway.into(), since: None, ..up() };
            sentence(&Style::fixed(), Some(&status))
        };
        let rest = "2 connections, 1 EVSE at the backend";
        assert_eq!(
            said("socks5", "smgw.local:8443"),
            format!("up through the gateway smgw.local:8443: {rest}")
        );
        assert_eq!(said("sni", "192.0.2.1:8443"), format!("up through the gateway 192.0.2.1:8443: {rest}"));
        assert_eq!(said("listen", ""), format!("up through the gateway, which connects to us: {rest}"));
        assert_eq!(said("direct", ""), format!("up without a gateway: {rest}"));
    }

    #[test]
    fn a_site_without_uplink_says_so() {
        assert_eq!(whole(&Style::fixed(), None), "This site has no uplink.");
    }
}
