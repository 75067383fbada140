//! `[ocpp]` and `[evse.ocpp]`.

use std::{collections::HashSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{Check, Checked, raw};
use crate::{
    config::{self, EvseOcpp, Ocpp, OcppTls, Security, Uplink},
    ocpp::{Secret, Version},
};

/// `[ocpp]`, and what it says of every EVSE.
pub(super) struct CheckedOcpp {
    pub(super) ocpp: Ocpp,
    security: Security,
}

impl Check<'_> {
    pub(super) fn ocpp(&self, raw: raw::Ocpp) -> Checked<CheckedOcpp> {
        let ms = Duration::from_millis;
        let s = Duration::from_secs;
        let max_frame = raw.max_frame.unwrap_or(1 << 20);
        if !(65_536..=16 << 20).contains(&max_frame) {
            return self
                .fail("ocpp.max_frame", format!("{max_frame} is out of range; use 65536 to 16777216 bytes"));
        }
        let check = raw.check.unwrap_or_default();
        let schemas = raw.schemas.map(|path| self.source.directory().join(path));
        if check != config::Check::Off && schemas.is_none() {
            return self.fail("ocpp.schemas", "is missing; name the directory with the official schemas");
        }
        let tls = match (raw.certificate, raw.key) {
            (Some(certificate), Some(key)) => Some(OcppTls {
                certificate: self.file("ocpp.certificate", &certificate)?,
                key: self.file("ocpp.key", &key)?,
                ca: raw.ca.map(|ca| self.file("ocpp.ca", &ca)).transpose()?,
            }),
            (None, None) if raw.ca.is_none() => None,
            (None, None) => return self.fail("ocpp.ca", "has no meaning without certificate and key"),
            _ => return self.fail("ocpp", "give certificate and key together"),
        };
        let ocpp = Ocpp {
            listen: raw.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8887))),
            ping_interval: self.duration("ocpp.ping_interval", raw.ping_interval, s(30), ms(100), s(3600))?,
            call_timeout: self.duration("ocpp.call_timeout", raw.call_timeout, s(10), ms(100), s(120))?,
            accept_unknown_offline: raw.accept_unknown_offline.unwrap_or(false),
            site: raw.site,
            controller: raw.controller,
            users: Arc::new(self.cards(&raw.cards)?),
            max_frame,
            tls,
            compression: raw.compression.unwrap_or(true),
            check,
            schemas,
        };
        Ok(CheckedOcpp { ocpp, security: raw.security.unwrap_or_default() })
    }

    /// OCPP 1.6 §7.28: an IdToken has up to 20 characters and no case.
    fn cards(&self, raw: &[String]) -> Checked<HashSet<String>> {
        for (i, card) in raw.iter().enumerate() {
            if card.is_empty() || card.chars().count() > 20 {
                let field = format!("ocpp.cards[{i}]");
                return self.fail(&field, format!("{card:?} is no card; use 1 to 20 characters"));
            }
        }
        Ok(raw.iter().map(|card| card.to_lowercase()).collect())
    }

    /// A password's file; only its owner should be able to read it.
    pub(super) fn secret(&self, field: &str, path: Option<PathBuf>) -> Checked<Option<Secret>> {
        let Some(path) = path else { return Ok(None) };
        let path = self.file(field, &path)?;
        match Secret::read(&path) {
            Ok(secret) => Ok(Some(secret)),
            Err(why) => self.fail(field, why),
        }
    }

    pub(super) fn evse_ocpp(
        &self,
        i: usize,
        raw: raw::EvseOcpp,
        all: &CheckedOcpp,
        uplink: Option<&Uplink>,
    ) -> Checked<EvseOcpp> {
        let at = |name: &str| format!("evse[{i}].ocpp.{name}");
        let versions = raw.versions.unwrap_or_else(|| Version::ALL.to_vec());
        if versions.is_empty() {
            return self.fail(&at("versions"), "is empty; name \"1.6\", \"2.0.1\" or \"2.1\"");
        }
        let security = raw.security.unwrap_or(all.security);
        let password = self.secret(&at("password_file"), raw.password_file)?;
        let (needs_password, needs_tls) = match security {
            Security::None => (false, false),
            Security::Basic => (true, false),
            Security::TlsBasic => (true, true),
            Security::MutualTls => (false, true),
        };
        if needs_password && password.is_none() && !raw.pass_through {
            return self.fail(&at("password_file"), "is missing; this security profile asks for a password");
        }
        if needs_tls && all.ocpp.tls.is_none() {
            return self.fail(&at("security"), "needs TLS; give ocpp.certificate and ocpp.key");
        }
        if security == Security::MutualTls && all.ocpp.tls.as_ref().is_some_and(|t| t.ca.is_none()) {
            return self.fail(&at("security"), "needs ocpp.ca, the issuers of the EVSEs' certificates");
        }
        let backend = match raw.backend {
            None => None,
            Some(backend) => {
                let backend = self.backend(&at("backend"), backend)?;
                self.way_to(&at("backend"), &backend, uplink)?;
                Some(backend)
            }
        };
        Ok(EvseOcpp {
            versions,
            security,
            password,
            merged_profiles: raw.profiles == Some(raw::Profiles::Merged),
            one_phase: raw.one_phase,
            pings: raw.pings.unwrap_or(true),
            strict: raw.uplink_loss == Some(raw::UplinkLoss::Strict),
            pass_through: raw.pass_through,
            backend,
        })
    }
}
