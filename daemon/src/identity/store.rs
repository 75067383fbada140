//! The device's own keys and their certificates.
//!
//! In: commands of an administrator. Out: the identity that is shown to the gateway, and what may be shown of all.
//! Invariants: a key that was made here is in no answer, no message and no file but its own, which only the
//! daemon's user may read; a certificate is only taken for the key it was issued for; the selected identity can be
//! used or there is a sentence why not.
//!
//! ```text
//! (nothing) ──create key──▶ key ──request──▶ (CA) ──import certificate──▶ usable ──select──▶ selected
//!     └──import key and certificate──────────────────────────────────────▶┘         renewed by another import
//! ```
//!
//! Files, in one directory: `NAME.key` (PEM), `NAME.pem` (chain, leaf first), `selected` (a name), `gateways`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::UnixTime,
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use tokio::sync::watch;

use super::{Identity, IdentityError, PinBook, file, pem, request};
use crate::{
    clock::{self, Clock},
    smgw::CertificateStatus,
    time::Wall,
    tls::{Profile, Shown, generate, provider},
};

/// Most identities that are kept; keeps a caller from filling the disk.
const MOST: usize = 32;

/// Longest text of certificates that is taken.
const LONGEST: usize = 256 << 10;

/// Why a command on the store came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The command says something that cannot be; the field is one of the command's.
    #[error("{field}: {problem}")]
    Invalid {
        /// `"name"`, `"certificate"`, `"key"`, `"subject"`.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// There is no such identity.
    #[error("there is no identity {0:?}")]
    Unknown(String),
    /// The name is taken.
    #[error("there is an identity {0:?} already; choose another name, or delete it first")]
    Exists(String),
    /// Something else is to be done first.
    #[error("{0}")]
    NotNow(String),
    /// The disk.
    #[error("{} does not work: {source}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a new key is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on brainpoolP256r1.
    EcdsaBrainpoolP256r1,
    /// ECDSA on brainpoolP384r1.
    EcdsaBrainpoolP384r1,
    /// ECDSA on brainpoolP512r1.
    EcdsaBrainpoolP512r1,
}

/// Whom a certificate is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name; without it the identity's name.
    pub common_name: String,
    /// Organisation; may be empty.
    pub organization: String,
    /// Country, two letters; may be empty.
    pub country: String,
    /// DNS names.
    pub dns_names: Vec<String>,
}

/// What can be shown of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name here.
    pub name: String,
    /// The leaf; `None` while there is a key alone.
    pub certificate: Option<CertificateStatus>,
    /// Certificates of its chain, leaf included.
    pub chain: usize,
    /// Whether it is shown to the gateway.
    pub selected: bool,
    /// Why it cannot be used; empty if it can.
    pub problem: String,
}

/// The identity that is shown to the gateway, or why there is none.
pub type Selected = Result<Identity, String>;

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    clock: Clock,
    pins: PinBook,
    /// One command at a time.
    names: Mutex<Names>,
    shown: Shown,
    selected: watch::Sender<Selected>,
}

#[derive(Debug, Default)]
struct Names {
    /// Used until another one is selected.
    default: Option<String>,
    selected: Option<String>,
}

impl Names {
    fn current(&self) -> Option<&String> {
        self.selected.as_ref().or(self.default.as_ref())
    }
}

/// A name serves as file name and is typed by people. The error says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits {
        Ok(())
    } else {
        Err(format!("{name:?} is not a name; use 1 to 32 of a-z, 0-9 and -, a letter or digit first"))
    }
}

const NOTHING_SELECTED: &str = "no identity is selected; see `ladewartctl identity list`";

impl Store {
    /// Opens the directory; a missing one holds nothing and is made with the first key.
    pub fn open(directory: &Path, clock: Clock) -> Result<Self, StoreError> {
        let disk = |path: PathBuf, source| StoreError::Disk { path, source };
        let path = directory.join("selected");
        let selected = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|name| check_name(name).is_ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(disk(path, e)),
        };
        let path = directory.join("gateways");
        let pins = PinBook::open(&path).map_err(|problem| disk(path, io::Error::other(problem)))?;
        let store = Self(Arc::new(Inner {
            directory: directory.to_owned(),
            clock,
            pins,
            names: Mutex::new(Names { default: None, selected }),
            shown: Shown::default(),
            selected: watch::Sender::new(Err(NOTHING_SELECTED.to_owned())),
        }));
        store.show(&store.names());
        Ok(store)
    }

    /// The identity that is used until another one is selected.
    pub fn default_to(&self, name: &str) {
        let mut names = self.names();
        names.default = Some(name.to_owned());
        self.show(&names);
    }

    /// What sessions with the gateway show; follows the selection.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.0.shown.clone()
    }

    /// The selected identity and each change.
    #[must_use]
    pub fn selected(&self) -> watch::Receiver<Selected> {
        self.0.selected.subscribe()
    }

    /// Gateways that were taken on.
    #[must_use]
    pub fn pins(&self) -> PinBook {
        self.0.pins.clone()
    }

    /// All, by name.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let names = self.names();
        let mut entries = Vec::new();
        for name in self.keys()? {
            entries.push(self.entry(&name, &names));
        }
        Ok(entries)
    }

    /// Makes a key. It never leaves this device.
    pub fn create_key(&self, name: &str, algorithm: Algorithm) -> Result<Entry, StoreError> {
        let names = self.names();
        self.free(name)?;
        let key = generate(algorithm)
            .map_err(|_| StoreError::NotNow("the system's random numbers do not work".to_owned()))?;
        write(&self.key_file(name), key.as_bytes())?;
        self.show(&names);
        Ok(self.entry(name, &names))
    }

    /// A request (PKCS#10, PEM) for a certificate for this key.
    pub fn request(&self, name: &str, subject: &Subject) -> Result<String, StoreError> {
        let _names = self.names();
        self.known(name)?;
        let key = pem::private_key(&self.key_file(name)).map_err(StoreError::NotNow)?;
        let key = provider(Profile::HAN).key_provider.load_private_key(key).map_err(|_| {
            StoreError::NotNow(format!("a request can only be made for an ECDSA key, which {name:?} is not"))
        })?;
        request::write(&*key, name, subject)
            .map_err(|problem| StoreError::Invalid { field: "subject", problem })
    }

    /// Takes a certificate chain for a key that is here. A selected identity is renewed by it: sessions that begin
    /// afterwards show the new certificate.
    pub fn import_certificate(&self, name: &str, chain: &str) -> Result<Entry, StoreError> {
        let names = self.names();
        self.known(name)?;
        let path = self.key_file(name);
        let secret = fs::read(&path).map_err(|source| StoreError::Disk { path, source })?;
        self.check(name, chain, &secret)?;
        write(&self.certificate_file(name), chain.as_bytes())?;
        self.show(&names);
        Ok(self.entry(name, &names))
    }

    /// Takes a key that was made elsewhere, with its chain (PEM both).
    pub fn import(&self, name: &str, chain: &str, key: &str) -> Result<Entry, StoreError> {
        let names = self.names();
        self.free(name)?;
        if key.len() > LONGEST {
            let problem = "is too long for a private key".to_owned();
            return Err(StoreError::Invalid { field: "key", problem });
        }
        self.check(name, chain, key.as_bytes())?;
        write(&self.certificate_file(name), chain.as_bytes())?;
        write(&self.key_file(name), key.as_bytes())?;
        self.show(&names);
        Ok(self.entry(name, &names))
    }

    /// Shows this one to the gateway from now on; `false` if it was so already. Sessions that stand stay.
    pub fn select(&self, name: &str) -> Result<bool, StoreError> {
        let mut names = self.names();
        self.known(name)?;
        let entry = self.entry(name, &names);
        if !entry.problem.is_empty() {
            return Err(StoreError::NotNow(format!(
                "identity {name:?} cannot be selected: {}",
                entry.problem
            )));
        }
        let changed = !entry.selected;
        if names.selected.as_deref() != Some(name) {
            write(&self.0.directory.join("selected"), format!("{name}\n").as_bytes())?;
            names.selected = Some(name.to_owned());
            self.show(&names);
        }
        Ok(changed)
    }

    /// Removes key and certificate; the selected one stays.
    pub fn delete(&self, name: &str) -> Result<(), StoreError> {
        let names = self.names();
        self.known(name)?;
        if names.current().is_some_and(|current| current == name) {
            return Err(StoreError::NotNow(format!(
                "identity {name:?} is shown to the gateway; select another one first"
            )));
        }
        for path in [self.certificate_file(name), self.key_file(name)] {
            file::remove(&path).map_err(|source| StoreError::Disk { path, source })?;
        }
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.0.directory.join(format!("{name}.key"))
    }

    fn certificate_file(&self, name: &str) -> PathBuf {
        self.0.directory.join(format!("{name}.pem"))
    }

    fn keys(&self) -> Result<Vec<String>, StoreError> {
        let disk = |source| StoreError::Disk { path: self.0.directory.clone(), source };
        let files = match fs::read_dir(&self.0.directory) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(disk(e)),
        };
        let mut names = Vec::new();
        for file in files {
            let file = file.map_err(disk)?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".key"));
            names.extend(name.filter(|name| check_name(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn known(&self, name: &str) -> Result<(), StoreError> {
        if check_name(name).is_ok() && self.key_file(name).exists() {
            Ok(())
        } else {
            Err(StoreError::Unknown(name.to_owned()))
        }
    }

    fn free(&self, name: &str) -> Result<(), StoreError> {
        check_name(name).map_err(|problem| StoreError::Invalid { field: "name", problem })?;
        let there = self.keys()?;
        if there.iter().any(|other| other == name) {
            return Err(StoreError::Exists(name.to_owned()));
        }
        if there.len() >= MOST {
            return Err(StoreError::NotNow(format!("there are {MOST} identities already; delete one first")));
        }
        Ok(())
    }

    fn load(&self, name: &str) -> Result<Identity, String> {
        if !self.key_file(name).exists() {
            return Err(format!(
                "identity {name:?} has no key yet; make one with `ladewartctl identity create-key {name}`"
            ));
        }
        let certificate = self.certificate_file(name);
        if !certificate.exists() {
            return Err(format!(
                "identity {name:?} has no certificate yet; let a CA answer `ladewartctl identity request {name}` \
                 and import it"
            ));
        }
        Identity::load(&certificate, &self.key_file(name), Profile::HAN).map_err(|e| e.to_string())
    }

    fn entry(&self, name: &str, names: &Names) -> Entry {
        let loaded = self.load(name);
        Entry {
            name: name.to_owned(),
            selected: names.current().is_some_and(|current| current == name),
            chain: loaded.as_ref().map_or(0, |identity| identity.certified_key().cert.len()),
            certificate: loaded.as_ref().ok().map(|identity| identity.status().clone()),
            problem: loaded.err().unwrap_or_default(),
        }
    }

    fn show(&self, names: &Names) {
        let selected = match names.current() {
            None => Err(NOTHING_SELECTED.to_owned()),
            Some(name) => self.load(name),
        };
        self.0.shown.set(selected.as_ref().ok().map(Identity::certified_key));
        drop(self.0.selected.send_replace(selected));
    }

    /// Key and chain belong together and may be shown to a gateway.
    fn check(&self, name: &str, chain: &str, key: &[u8]) -> Result<(), StoreError> {
        let invalid = |problem: String| StoreError::Invalid { field: "certificate", problem };
        if chain.len() > LONGEST {
            return Err(invalid("is longer than 256 KiB; give the leaf and its issuers alone".to_owned()));
        }
        let from = Path::new("certificate");
        let certificates = pem::certificates_in(from, chain.as_bytes()).map_err(invalid)?;
        let secret = pem::private_key_in(Path::new("key"), key)
            .map_err(|problem| StoreError::Invalid { field: "key", problem })?;
        let identity =
            Identity::new(certificates, secret, Profile::HAN, from, Path::new(&format!("the key of {name}")));
        let identity = identity.map_err(|error| match error {
            IdentityError::Certificate(problem) => invalid(problem),
            IdentityError::Key(problem) => StoreError::Invalid { field: "key", problem },
        })?;
        let status = identity.status();
        let now = self.0.clock.now().wall;
        if clock::plausible(now) && status.not_after < now {
            return Err(invalid(format!("ended on {}; ask the CA for a new one", status.not_after)));
        }
        check_chain(&identity, status.not_before).map_err(invalid)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    file::write(path, bytes).map_err(|source| StoreError::Disk { path: path.to_owned(), source })
}

/// Each certificate is signed by the one that follows, and the leaf may open sessions.
fn check_chain(identity: &Identity, at: Wall) -> Result<(), String> {
    let certified = identity.certified_key();
    let Some((leaf, issuers)) = certified.cert.split_first() else {
        return Err(pem::NO_CERTIFICATE.to_owned());
    };
    super::usable(leaf, !issuers.is_empty())?;
    let Some(last) = issuers.last() else {
        return Ok(());
    };
    let unusable = |e: &dyn std::fmt::Display| format!("the chain cannot be used: {e}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(last.clone()).map_err(|e| unusable(&e))?;
    let provider = Arc::new(provider(Profile::HAN));
    let algorithms = provider.signature_verification_algorithms.all;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider)
        .build()
        .map_err(|e| unusable(&e))?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)));
    let as_client = clients.verify_client_cert(leaf, issuers, at).map(drop);
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| unusable(&e))?;
    let judged = as_client
        .or_else(|_| verify_server_cert_signed_by_trust_anchor(&parsed, &roots, issuers, at, algorithms));
    judged.map_err(|e| {
        format!(
            "the certificates do not form a chain, each signed by the next ({e}); give the leaf first, then its \
             issuer, then that one's"
        )
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
