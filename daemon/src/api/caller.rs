//! Who is at the other end of a connection, and who that is to us.
//!
//! In: what the transport vouches for (the kernel a user id, TLS a certificate), and the configuration. Out: a
//! [`Caller`], or why there is none. Invariant: fail closed. Nobody, an unknown one, and one who could be two are
//! nobody to us.

use std::{collections::HashMap, sync::Arc};

use rustls::pki_types::CertificateDer;
use tonic::Status;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    config::{self, KnownCertificate, Mark, Role, Role::Admin},
    identity,
    time::Wall,
};

/// Who is at the other end, as the transport vouches for it.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A process on this machine; `None` if the system would not tell its user.
    User(Option<u32>),
    /// The holder of a certificate's key.
    Certificate(Arc<Presented>),
}

/// A certificate that TLS has accepted: its issuer or its pin is right, its holder has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// SHA-256 over the DER form.
    pub fingerprint: [u8; 32],
    /// Subject, for people.
    pub subject: String,
    /// The URIs among its subject alternative names.
    pub uris: Vec<String>,
    /// When it expires; absent where a pin vouches for it whatever its dates.
    pub not_after: Option<Wall>,
    /// The most that anybody may be on this connection; everything without.
    pub most: Option<Vec<Role>>,
}

impl Presented {
    /// Reads a peer's leaf certificate; `None` if it cannot be read.
    #[must_use]
    pub fn read(leaf: &CertificateDer<'_>) -> Option<Self> {
        let shown = identity::describe(leaf)?;
        let (_, parsed) = X509Certificate::from_der(leaf.as_ref()).ok()?;
        let names = parsed.subject_alternative_name().ok()?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        Some(Self {
            fingerprint: shown.fingerprint,
            subject: shown.subject,
            uris: uris.collect(),
            not_after: Some(shown.not_after),
            most: None,
        })
    }

    /// The same, for a connection on which nobody is more than these.
    #[must_use]
    pub fn at_most(self, roles: Vec<Role>) -> Self {
        Self { most: Some(roles), ..self }
    }

    /// The same, for a certificate that is pinned.
    #[must_use]
    pub fn undated(self) -> Self {
        Self { not_after: None, ..self }
    }
}

impl Peer {
    /// For counts and logs: one name per peer, known or not.
    pub(super) fn key(&self) -> String {
        match self {
            Self::User(Some(uid)) => format!("uid:{uid}"),
            Self::User(None) => "uid:?".to_owned(),
            Self::Certificate(shown) => format!("cert:{}", identity::hex(&shown.fingerprint[..8])),
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As it appears in limits and in the journal: `"uid:1000"`, `"cert:"` and the configured name, the URI or the
    /// first 16 digits of the fingerprint.
    pub issuer: String,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// The caller of a request that passed the gate.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        // Only a service that is served without the gate could get here.
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::internal("the caller is not known"))
    }
}

/// Everybody whom the configuration knows.
#[derive(Debug)]
pub(super) struct Directory {
    users: HashMap<u32, Role>,
    certificates: Vec<KnownCertificate>,
}

impl Directory {
    /// Root and the daemon's own user are `admin` unless the configuration says otherwise.
    pub(super) fn new(config: &config::Api) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let mut users = HashMap::from([(0, Admin), (own, Admin)]);
        users.extend(config.users.iter().copied());
        Self { users, certificates: config.certificates.clone() }
    }

    /// The caller behind a peer, or why there is none, in a sentence.
    pub(super) fn caller(&self, peer: &Peer, now: Wall) -> Result<Caller, String> {
        match peer {
            Peer::User(None) => Err("the system does not say who calls".to_owned()),
            Peer::User(Some(uid)) => match self.users.get(uid) {
                Some(&role) => Ok(Caller { issuer: format!("uid:{uid}"), role }),
                None => Err(format!(
                    "user {uid} has no role here; an administrator gives one in the configuration under api.user"
                )),
            },
            Peer::Certificate(shown) => self.holder(shown, now),
        }
    }

    fn holder(&self, shown: &Presented, now: Wall) -> Result<Caller, String> {
        let print = identity::hex(&shown.fingerprint);
        if shown.not_after.is_some_and(|end| end < now) {
            return Err(format!(
                "certificate {print} has expired while the connection stood; connect with a new one"
            ));
        }
        let fits = |known: &&KnownCertificate| match &known.by {
            Mark::Fingerprint(print) => *print == shown.fingerprint,
            Mark::Uri(uri) => shown.uris.contains(uri),
        };
        let mut found = self.certificates.iter().filter(fits);
        let Some(first) = found.next() else {
            return Err(format!(
                "certificate {print} has no role here; an administrator gives one in the configuration under \
                 api.certificate"
            ));
        };
        if let Some(other) = found.find(|other| (&other.name, other.role) != (&first.name, first.role)) {
            return Err(format!(
                "certificate {print} could be \"{}\" or \"{}\"; an administrator makes it one in the configuration \
                 under api.certificate",
                first.name, other.name
            ));
        }
        match &shown.most {
            Some(most) if !most.contains(&first.role) => Err(format!(
                "\"{}\" has the role {}, which this connection does not admit; see roles under operator",
                first.name,
                first.role.name()
            )),
            _ => Ok(Caller { issuer: format!("cert:{}", first.name), role: first.role }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(print: u8, uris: &[&str]) -> Presented {
        Presented {
            fingerprint: [print; 32],
            subject: "CN=x".into(),
            uris: uris.iter().map(|u| (*u).to_owned()).collect(),
            not_after: Some(Wall(1000)),
            most: None,
        }
    }

    fn directory() -> Directory {
        let known = |by, name: &str, role| KnownCertificate { by, name: name.into(), role };
        Directory::new(&config::Api {
            socket: "x".into(),
            users: vec![(1000, Role::Viewer)],
            certificates: vec![
                known(Mark::Fingerprint([1; 32]), "dso", Role::Grid),
                known(Mark::Fingerprint([2; 32]), "dso", Role::Grid),
                known(Mark::Uri("urn:x:dso".into()), "dso", Role::Grid),
                known(Mark::Uri("urn:x:boss".into()), "urn:x:boss", Role::Admin),
            ],
            lan: None,
        })
    }

    fn caller(shown: Presented) -> Result<(String, Role), String> {
        let caller = directory().caller(&Peer::Certificate(Arc::new(shown)), Wall(999));
        caller.map(|caller| (caller.issuer, caller.role))
    }

    #[test]
    fn a_certificate_is_known_by_fingerprint_or_uri_and_keeps_its_name_over_a_change() {
        let dso = Ok(("cert:dso".to_owned(), Role::Grid));
        assert_eq!(caller(shown(1, &[])), dso);
        assert_eq!(caller(shown(2, &[])), dso);
        assert_eq!(caller(shown(9, &["urn:x:other", "urn:x:dso"])), dso);
        assert_eq!(caller(shown(1, &["urn:x:dso"])), dso, "found twice as the same one");
        assert_eq!(caller(shown(9, &["urn:x:boss"])), Ok(("cert:urn:x:boss".to_owned(), Role::Admin)));
    }

    #[test]
    fn the_unknown_the_unclear_and_the_expired_are_nobody() {
        let unknown = caller(shown(9, &["urn:x:DSO", "urn:x:dso2"])).unwrap_err();
        assert!(unknown.contains(&"09".repeat(32)) && unknown.contains("api.certificate"), "{unknown}");
        let unclear = caller(shown(1, &["urn:x:boss"])).unwrap_err();
        assert!(unclear.contains("could be \"dso\" or \"urn:x:boss\""), "{unclear}");
        let peer = |shown| Peer::Certificate(Arc::new(shown));
        let expired = directory().caller(&peer(shown(1, &[])), Wall(1001)).unwrap_err();
        assert!(expired.contains("expired"), "{expired}");
        assert!(directory().caller(&peer(shown(1, &[]).undated()), Wall(1001)).is_ok(), "a pin has no dates");
        assert!(directory().caller(&Peer::User(None), Wall(0)).is_err());
    }

    #[test]
    fn a_connection_makes_nobody_more_than_it_admits() {
        let refused = caller(shown(9, &["urn:x:boss"]).at_most(vec![Role::Grid, Role::Viewer])).unwrap_err();
        assert!(refused.contains("the role admin, which this connection does not admit"), "{refused}");
        assert!(caller(shown(1, &[]).at_most(vec![Role::Grid])).is_ok());
        assert!(caller(shown(1, &[]).at_most(vec![])).is_err());
    }
}
