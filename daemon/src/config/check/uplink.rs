//! The tables `[uplink]` and `[backend]`.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{Check, Checked};
use crate::config::{
    Anchors, Backend, BackendTls, Connections, Gateway, GatewayTls, Mode, Own, Place, Target, Trust, Uplink,
    raw,
};

const PIN: &str = "is not a SHA-256 fingerprint; write 64 hexadecimal digits, colons allowed";

impl Check<'_> {
    pub(super) fn uplink(&self, raw: raw::Uplink) -> Checked<Uplink> {
        let s = Duration::from_secs;
        let backoff_min = self.duration("uplink.backoff_min", raw.backoff_min, s(1), s(1), s(60))?;
        let backoff_max = self.duration("uplink.backoff_max", raw.backoff_max, s(300), s(1), s(3600))?;
        if backoff_max < backoff_min {
            return self.fail("uplink.backoff_max", "must not be shorter than uplink.backoff_min");
        }
        let step_timeout = self.duration("uplink.step_timeout", raw.step_timeout, s(10), s(1), s(120))?;
        // TR-03116-3: a session ends after 48 h; what is left serves to build the next one.
        let renew_after =
            self.duration("uplink.renew_after", raw.renew_after, s(47 * 3600), s(10), s(47 * 3600 + 1800))?;
        let connections = match raw.connections {
            None | Some(raw::Connections::Many) => Connections::Many,
            Some(raw::Connections::OnePerTarget) => Connections::OnePerTarget,
        };
        self.only_where_it_has_a_meaning(&raw)?;
        let targets = self.targets(raw.mode, &raw.target)?;
        let mode = match raw.mode {
            raw::Mode::Direct => Mode::Direct,
            raw::Mode::Socks5 => Mode::Socks5(self.gateway(raw)?),
            raw::Mode::Sni => Mode::Sni(self.gateway(raw)?),
            raw::Mode::Listen => Mode::Listen(self.gateway(raw)?),
        };
        Ok(Uplink { mode, targets, connections, renew_after, backoff_min, backoff_max, step_timeout })
    }

    fn only_where_it_has_a_meaning(&self, raw: &raw::Uplink) -> Checked<()> {
        let (direct, listen) = (raw.mode == raw::Mode::Direct, raw.mode == raw::Mode::Listen);
        for (name, given, meaningless) in [
            ("gateway", raw.gateway.is_some(), direct || listen),
            ("listen", raw.listen.is_some(), !listen),
            ("interface", raw.interface.is_some(), direct),
            ("identity", raw.identity.is_some(), direct),
            ("certificate", raw.certificate.is_some(), direct),
            ("key", raw.key.is_some(), direct),
            ("trust", raw.trust.is_some(), direct),
            ("tls13", raw.tls13, direct),
            ("cbc", raw.cbc, direct),
            ("quirks", raw.quirks.is_some(), direct || listen),
        ] {
            if given && meaningless {
                return self.fail(
                    &format!("uplink.{name}"),
                    format!("has no meaning with mode = \"{}\"; remove it", raw.mode.name()),
                );
            }
        }
        Ok(())
    }

    fn gateway(&self, raw: raw::Uplink) -> Checked<Gateway> {
        let address = if raw.mode == raw::Mode::Listen {
            raw.listen.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).to_string()
        } else {
            let address = self.required("uplink.gateway", raw.gateway, "\"192.0.2.1:8443\"")?;
            self.host_port("uplink.gateway", &address)?;
            address
        };
        let own = match (raw.identity, raw.certificate, raw.key) {
            (Some(name), None, None) => {
                if let Err(problem) = crate::identity::check_name(&name) {
                    return self.fail("uplink.identity", problem);
                }
                Own::Stored(name)
            }
            (Some(_), _, _) => {
                return self.fail(
                    "uplink.identity",
                    "stands beside certificate or key; give either the identity's name or the two files",
                );
            }
            (None, certificate, key) => Own::Files {
                certificate: self.file(
                    "uplink.certificate",
                    &self.required("uplink.certificate", certificate, "\"cls.pem\"")?,
                )?,
                key: self.file("uplink.key", &self.required("uplink.key", key, "\"cls.key\"")?)?,
            },
        };
        let tls = GatewayTls {
            tls13: raw.tls13,
            cbc: raw.cbc,
            omit_scsv: raw.quirks.and_then(|quirks| quirks.omit_scsv),
        };
        if tls.tls13 && tls.omit_scsv == Some(true) {
            return self.fail(
                "uplink.quirks.omit_scsv",
                "goes with TLS 1.2 alone; remove tls13 = true, such a gateway does not speak it",
            );
        }
        let trust =
            self.required("uplink.trust", raw.trust, "{ pin = \"…\" } or { ca = \"gateway-ca.pem\" }")?;
        let trust = self.trust("uplink.trust", trust)?;
        Ok(Gateway { address, interface: raw.interface, own, trust, tls })
    }

    fn targets(&self, mode: raw::Mode, raw: &[raw::Target]) -> Checked<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::with_capacity(raw.len());
        for (i, target) in raw.iter().enumerate() {
            let at = |name: &str| format!("uplink.target[{i}].{name}");
            if let Err(problem) = crate::identity::check_name(&target.name) {
                return self.fail(&at("name"), problem);
            }
            let (by_host, by_port) =
                (matches!(mode, raw::Mode::Socks5 | raw::Mode::Direct), mode == raw::Mode::Listen);
            for (name, given, meaningless) in [
                ("host", target.host.is_some(), !by_host),
                ("port", target.port.is_some(), !by_host && !by_port),
                ("sni", target.sni.is_some(), mode != raw::Mode::Sni),
            ] {
                if given && meaningless {
                    return self.fail(
                        &at(name),
                        format!("has no meaning with mode = \"{}\"; remove it", mode.name()),
                    );
                }
            }
            let port = || match self.required(&at("port"), target.port, "9000")? {
                0 => self.fail(&at("port"), "0 is no port; use 1 to 65535"),
                port => Ok(port),
            };
            let place = match mode {
                raw::Mode::Socks5 | raw::Mode::Direct => {
                    let host = self.required(&at("host"), target.host.clone(), "\"emt.example\"")?;
                    if !(1..=255).contains(&host.len()) {
                        return self.fail(&at("host"), "must have 1 to 255 bytes");
                    }
                    Place::Host(host, port()?)
                }
                raw::Mode::Sni => {
                    let name = self.required(&at("sni"), target.sni.clone(), "\"emt.example\"")?;
                    self.dns_name(&at("sni"), &name)?;
                    Place::Sni(name)
                }
                raw::Mode::Listen => Place::Port(port()?),
            };
            for other in &targets {
                if other.name == target.name {
                    return self
                        .fail(&at("name"), format!("\"{}\" names another target already", other.name));
                }
                if other.place == place && mode == raw::Mode::Listen {
                    return self
                        .fail(&at("port"), format!("is the port of target \"{}\" already", other.name));
                }
            }
            targets.push(Target { name: target.name.clone(), place });
        }
        if mode == raw::Mode::Listen && targets.is_empty() {
            return self.fail("uplink.target", "is missing; add [[uplink.target]] with a name and a port");
        }
        Ok(targets)
    }

    /// A name that a TLS handshake can carry: no address.
    fn dns_name(&self, field: &str, name: &str) -> Checked<()> {
        let fits = rustls::pki_types::DnsName::try_from(name).is_ok();
        if fits { Ok(()) } else { self.fail(field, format!("{name:?} is not a DNS name")) }
    }

    /// There is a way to the backend.
    pub(super) fn way_to(&self, at: &str, backend: &Backend, uplink: Option<&Uplink>) -> Checked<()> {
        let Some(uplink) = uplink else {
            return self.fail(at, "needs a table [uplink]; without a gateway write mode = \"direct\"");
        };
        if let Some(name) = &backend.target {
            if uplink.targets.iter().any(|target| target.name == *name) {
                return Ok(());
            }
            let there: Vec<_> = uplink.targets.iter().map(|target| target.name.as_str()).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return self
                .fail(&format!("{at}.target"), format!("there is no target \"{name}\"; there are {there}"));
        }
        match &uplink.mode {
            Mode::Listen(_) if uplink.targets.len() > 1 => self.fail(
                &format!("{at}.target"),
                "is missing; with mode = \"listen\" and several targets, name the one that is the backend",
            ),
            Mode::Sni(_) => self.dns_name(&format!("{at}.url"), &backend.host),
            _ => Ok(()),
        }
    }

    fn trust(&self, field: &str, raw: raw::Trust) -> Checked<Trust> {
        let mut pins = Vec::new();
        for pin in raw.pin.map(|pins| pins.0).unwrap_or_default() {
            match crate::identity::parse_fingerprint(&pin) {
                Some(pin) => pins.push(pin),
                None => return self.fail(&format!("{field}.pin"), PIN),
            }
        }
        if raw.name.is_some() && raw.ca.is_none() {
            return self.fail(&format!("{field}.name"), "has a meaning with ca alone; remove it");
        }
        let ca = match raw.ca {
            Some(ca) => Some(Anchors { file: self.file(&format!("{field}.ca"), &ca)?, name: raw.name }),
            None => None,
        };
        if pins.is_empty() && ca.is_none() && !raw.tofu {
            return self.fail(field, "trusts nobody; give pin = \"…\", ca = \"file.pem\" or tofu = true");
        }
        Ok(Trust { pins, ca, tofu: raw.tofu })
    }

    pub(super) fn backend(&self, at: &str, raw: raw::Backend) -> Checked<Backend> {
        let s = Duration::from_secs;
        let url = raw.url.trim();
        let (secure, rest) = if let Some(rest) = url.strip_prefix("wss://") {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("ws://") {
            (false, rest)
        } else {
            return self.fail(&format!("{at}.url"), format!("{url:?} must begin with ws:// or wss://"));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') || path.contains(['?', '#', ' ']) {
            return self.fail(
                &format!("{at}.url"),
                "must not hold a user, a query or a fragment; the identity is appended",
            );
        }
        let authority =
            if authority.rsplit_once(':').is_some_and(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())) {
                authority.to_owned()
            } else {
                format!("{authority}:{}", if secure { 443 } else { 80 })
            };
        let (host, port) = self.host_port(&format!("{at}.url"), &authority)?;
        let path = if path.is_empty() { "/".to_owned() } else { format!("/{}/", path.trim_matches('/')) };
        let tls = if secure {
            let ca = self.required(&format!("{at}.ca"), raw.ca, "\"backend-ca.pem\"")?;
            let identity = match (raw.certificate, raw.key) {
                (Some(c), Some(k)) => {
                    Some((self.file(&format!("{at}.certificate"), &c)?, self.file(&format!("{at}.key"), &k)?))
                }
                (None, None) => None,
                _ => return self.fail(at, "give certificate and key together"),
            };
            Some(BackendTls { ca: self.file(&format!("{at}.ca"), &ca)?, identity })
        } else {
            for (name, given) in [
                ("ca", raw.ca.is_some()),
                ("certificate", raw.certificate.is_some()),
                ("key", raw.key.is_some()),
            ] {
                if given {
                    return self
                        .fail(&format!("{at}.{name}"), "has no meaning with ws://; remove it or use wss://");
                }
            }
            None
        };
        if let Some(identity) = &raw.identity
            && (identity.as_str().is_empty() || identity.as_str().contains(':'))
        {
            return self.fail(&format!("{at}.identity"), "must not be empty nor hold a colon");
        }
        let password = self.secret(&format!("{at}.password_file"), raw.password_file)?;
        let attempts = raw.attempts.unwrap_or(3);
        if !(1..=100).contains(&attempts) {
            return self.fail(&format!("{at}.attempts"), format!("{attempts} is out of range; use 1 to 100"));
        }
        Ok(Backend {
            tls,
            host,
            port,
            target: raw.target,
            path,
            ping_interval: self.duration(
                &format!("{at}.ping_interval"),
                raw.ping_interval,
                s(60),
                s(1),
                s(540),
            )?,
            call_timeout: self.duration(
                &format!("{at}.call_timeout"),
                raw.call_timeout,
                s(30),
                s(1),
                s(300),
            )?,
            attempts,
            password,
            identity: raw.identity,
            compression: raw.compression.unwrap_or(false),
            retry_interval: self.duration(
                &format!("{at}.retry_interval"),
                raw.retry_interval,
                s(60),
                s(1),
                s(3600),
            )?,
        })
    }
}
