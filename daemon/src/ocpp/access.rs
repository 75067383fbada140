//! Who an EVSE is (security profiles 1 to 3 of the 1.6 Security White Paper and of 2.x Part 2 A) and how we show
//! ourselves to the backend.
//!
//! In: what the configuration demands of an EVSE, what its handshake showed. Out: whether it may in, or why not.
//! Invariant: passwords are bytes, compared in constant time, and never shown.

use std::{fmt, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::config::Security;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads a file: its text without the end of the line.
    /// Errors: a sentence about the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        // 1.6-J §6.2.1: 20 bytes; 2.x A01: 16 to 40 characters. Shorter ones are guessed.
        if text.len() < 8 {
            return Err(format!("{} holds fewer than 8 characters", path.display()));
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// One that the backend gave.
    pub(crate) fn given(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As bytes, if it is the hexadecimal writing of a 1.6 AuthorizationKey.
    fn unhexed(&self) -> Option<Vec<u8>> {
        unhex(std::str::from_utf8(&self.0).ok()?)
    }

    /// What goes over the wire: a 1.6 key as bytes, anything else as it is.
    fn wire(&self) -> Vec<u8> {
        self.unhexed().unwrap_or_else(|| self.0.clone())
    }

    /// Whether a peer showed it: EVSEs send the key's bytes, or its hexadecimal writing (G-10).
    fn is(&self, shown: &[u8]) -> bool {
        let same = |a: &[u8]| Sha256::digest(a) == Sha256::digest(shown);
        let as_bytes = self.unhexed().is_some_and(|bytes| same(&bytes));
        let as_text = same(&self.0) || same(&self.0.to_ascii_lowercase()) && self.unhexed().is_some();
        as_bytes || as_text
    }
}

/// The bytes of a 1.6 AuthorizationKey: 16 to 20 bytes in hexadecimal (Security White Paper §2.6).
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let fits = (32..=40).contains(&text.len()) && text.len().is_multiple_of(2);
    if !fits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// The header's value with which we show ourselves (RFC 7617).
pub(super) fn basic(user: &str, secret: &Secret) -> String {
    let mut pair = format!("{user}:").into_bytes();
    pair.extend(secret.wire());
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// User and password of such a header.
pub(super) fn unbasic(value: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, code) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = BASE64_STANDARD.decode(code.trim()).ok()?;
    let colon = bytes.iter().position(|b| *b == b':')?;
    Some((String::from_utf8(bytes[..colon].to_vec()).ok()?, bytes[colon + 1..].to_vec()))
}

/// What an EVSE's handshake showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    /// Over TLS.
    pub(super) tls: bool,
    /// The names in its certificate, which was judged already; `None` without one.
    pub(super) names: Option<Vec<String>>,
    /// User and password.
    pub(super) basic: Option<(String, Vec<u8>)>,
}

/// What an EVSE must show.
#[derive(Debug, Clone)]
pub struct Access {
    security: Security,
    identity: String,
    password: Option<Secret>,
}

impl Access {
    /// For one EVSE. With a password, it is asked for whatever the profile.
    #[must_use]
    pub fn new(security: Security, identity: &str, password: Option<Secret>) -> Self {
        Self { security, identity: identity.to_owned(), password }
    }

    /// Whether it may in.
    pub(super) fn admits(&self, shown: &Shown) -> Result<(), &'static str> {
        let needs_tls = matches!(self.security, Security::TlsBasic | Security::MutualTls);
        if needs_tls && !shown.tls {
            return Err("it comes without TLS");
        }
        if self.security == Security::MutualTls {
            let names = shown.names.as_ref().ok_or("it shows no certificate")?;
            if !names.iter().any(|name| name == &self.identity) {
                return Err("its certificate carries another name than its identity");
            }
            return Ok(());
        }
        let Some(password) = &self.password else {
            return Ok(());
        };
        let (user, given) = shown.basic.as_ref().ok_or("it shows no password")?;
        if *user != self.identity {
            return Err("its user name is not its identity");
        }
        if password.is(given) { Ok(()) } else { Err("its password is wrong") }
    }
}

/// The names that a certificate carries: subject CN and DNS names.
pub(super) fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name().filter_map(|n| n.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|n| match n {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tls: bool, names: Option<&[&str]>, password: Option<&[u8]>) -> Shown {
        Shown {
            tls,
            names: names.map(|n| n.iter().map(|n| (*n).to_owned()).collect()),
            basic: password.map(|p| ("CP1".to_owned(), p.to_vec())),
        }
    }

    #[test]
    fn each_profile_wants_its_own() {
        let secret = Secret(b"correct horse battery".to_vec());
        let right: Option<&[u8]> = Some(b"correct horse battery");
        let access = |security| Access::new(security, "CP1", Some(secret.clone()));
        for (security, shown, may) in [
            (Security::None, shown(false, None, right), true),
            (Security::Basic, shown(false, None, right), true),
            (Security::Basic, shown(true, None, right), true),
            (Security::Basic, shown(false, None, Some(b"wrong")), false),
            (Security::Basic, shown(false, None, None), false),
            (Security::TlsBasic, shown(false, None, right), false),
            (Security::TlsBasic, shown(true, None, right), true),
            (Security::MutualTls, shown(true, None, right), false),
            (Security::MutualTls, shown(true, Some(&["CP2"]), None), false),
            (Security::MutualTls, shown(true, Some(&["x", "CP1"]), None), true),
            (Security::MutualTls, shown(false, Some(&["CP1"]), None), false),
        ] {
            assert_eq!(access(security).admits(&shown).is_ok(), may, "{security:?} {shown:?}");
        }
        assert!(Access::new(Security::None, "CP1", None).admits(&shown(false, None, None)).is_ok());
        let other =
            Shown { basic: Some(("CP2".into(), b"correct horse battery".to_vec())), ..Shown::default() };
        assert!(access(Security::Basic).admits(&other).is_err());
    }

    #[test]
    fn a_key_of_1_6_is_bytes() {
        let text = "00ff0102030405060708090a0b0c0d0e0f101112";
        let secret = Secret(text.as_bytes().to_vec());
        let bytes = unhex(text).unwrap();
        assert_eq!(bytes.len(), 20);
        assert!(secret.is(&bytes) && secret.is(text.as_bytes()));
        let header = basic("CP1", &secret);
        assert_eq!(unbasic(&header), Some(("CP1".to_owned(), bytes)));
        let plain = Secret(b"a:b c-not-hex".to_vec());
        assert_eq!(unbasic(&basic("CP1", &plain)), Some(("CP1".to_owned(), b"a:b c-not-hex".to_vec())));
        assert!(!format!("{plain:?}").contains("hex"));
        assert_eq!(unbasic("Bearer x"), None);
    }
}
