//! Whether a peer's certificate is the right one: a gateway's, an operator's, a caller's.
//!
//! A pin names one certificate; the administrator vouches for it as it stands, so its issuer, its dates and its
//! CA flag are not judged (gateways before TR-03109-1 2.0 show a self-signed certificate). Anchors judge the chain,
//! the dates and, if asked, the name. One of both suffices, so that an old pin and a new anchor can stand side by
//! side. In every case the peer proves that it holds the key.
//!
//! While the clock is not set, dates are not judged: a device that lost its clock must find its gateway again.
//!
//! Trust on first use: while an administrator has armed it, an unknown certificate is taken; the caller stores it
//! as a pin when the handshake has shown that the peer holds its key.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerMisbehaved, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{
    clock::{self, Clock},
    config::Trust,
    identity::{self, PinBook},
    time::Wall,
};

/// Reads a PEM bundle of trust anchors. The error says what is wrong with the file.
pub fn anchors(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (i, certificate) in identity::certificates(file)?.into_iter().enumerate() {
        store.add(certificate).map_err(|e| {
            format!("{}: certificate {} cannot be a trust anchor: {e}", file.display(), i + 1)
        })?;
    }
    Ok(store)
}

/// Nothing that we trust fits the certificate.
#[derive(Debug)]
pub(super) struct Stranger {
    shown: [u8; 32],
    pinned: Vec<[u8; 32]>,
    /// Whether an administrator may take it on.
    tofu: bool,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its certificate has the fingerprint {}, ", identity::hex(&self.shown))?;
        let pinned: Vec<_> = self.pinned.iter().map(|pin| identity::hex(pin)).collect();
        match &pinned[..] {
            [] => f.write_str("and none is trusted yet")?,
            pinned => write!(f, "pinned is {}", pinned.join(" or "))?,
        }
        if self.tofu {
            f.write_str("; if it is the right one, `ladewartctl uplink trust` takes it on")?;
        }
        Ok(())
    }
}

impl std::error::Error for Stranger {}

/// Judges a gateway's certificate, in whichever direction it came, and remembers the last one shown, refused or
/// not.
#[derive(Debug)]
pub struct Judge {
    trust: Trust,
    roots: Option<(RootCertStore, Option<ServerName<'static>>)>,
    /// The same roots for the direction in which the gateway is the client.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    book: PinBook,
    algorithms: WebPkiSupportedAlgorithms,
    clock: Clock,
    seen: Mutex<Option<CertificateDer<'static>>>,
    /// The issuers that a client is asked for.
    hints: Vec<DistinguishedName>,
}

/// Which end of the handshake shows the certificate.
#[derive(Debug, Clone, Copy)]
enum End {
    Server,
    Client,
}

impl Judge {
    /// Reads the anchors. The error says what is wrong with them.
    pub fn new(
        trust: &Trust,
        book: PinBook,
        provider: &Arc<CryptoProvider>,
        clock: Clock,
    ) -> Result<Arc<Self>, String> {
        let mut judge = Self::nobody(provider, clock);
        judge.trust = trust.clone();
        judge.book = book;
        if let Some(ca) = &trust.ca {
            let name = ca.name.as_ref().map(|name| super::server_name(name)).transpose()?;
            judge
                .anchor(anchors(&ca.file)?, name, provider)
                .map_err(|e| format!("{}: {e}", ca.file.display()))?;
        }
        Ok(Arc::new(judge))
    }

    /// Takes what these issuers signed and, with a name, only who has it. Clients are asked for these issuers.
    pub fn issued_by(
        roots: RootCertStore,
        name: Option<ServerName<'static>>,
        provider: &Arc<CryptoProvider>,
        clock: Clock,
    ) -> Result<Arc<Self>, String> {
        let mut judge = Self::nobody(provider, clock);
        judge.hints = roots.subjects();
        judge.anchor(roots, name, provider)?;
        Ok(Arc::new(judge))
    }

    /// Takes the one certificate with this SHA-256 and no other.
    #[must_use]
    pub fn pinned_to(pin: [u8; 32], provider: &CryptoProvider, clock: Clock) -> Arc<Self> {
        let mut judge = Self::nobody(provider, clock);
        judge.trust.pins.push(pin);
        Arc::new(judge)
    }

    fn nobody(provider: &CryptoProvider, clock: Clock) -> Self {
        Self {
            trust: Trust::default(),
            roots: None,
            clients: None,
            book: PinBook::default(),
            algorithms: provider.signature_verification_algorithms,
            clock,
            seen: Mutex::new(None),
            hints: Vec::new(),
        }
    }

    fn anchor(
        &mut self,
        roots: RootCertStore,
        name: Option<ServerName<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(), String> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider))
                .build();
        self.clients = Some(clients.map_err(|e| e.to_string())?);
        self.roots = Some((roots, name));
        Ok(())
    }

    /// The certificate that was shown last.
    #[must_use]
    pub fn seen(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The handshake with this certificate is complete: takes it on if it was taken for the first time.
    pub fn confirm(&self, leaf: &CertificateDer<'_>) {
        let shown = identity::fingerprint(leaf);
        // A certificate that anchors cover may be pinned here as well; that trusts nobody more.
        if !self.pinned(&shown) && self.armed() {
            self.book.take(shown);
        }
    }

    fn armed(&self) -> bool {
        self.trust.tofu && self.book.armed(self.clock.now().mono)
    }

    fn pinned(&self, shown: &[u8; 32]) -> bool {
        self.trust.pins.contains(shown) || self.trust.tofu && self.book.holds(shown)
    }

    /// The time to judge dates by: ours, or while our clock is not set one at which this chain is valid.
    fn present(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> UnixTime {
        let now = self.clock.now().wall;
        let wall = if clock::plausible(now) {
            now
        } else {
            let chain = std::iter::once(leaf).chain(intermediates);
            let begins = chain.filter_map(identity::describe).map(|certificate| certificate.not_before);
            begins.max().unwrap_or(now)
        };
        unix(wall)
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        end: End,
    ) -> Result<(), rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone().into_owned());
        let shown = identity::fingerprint(leaf);
        if self.pinned(&shown) {
            return Ok(());
        }
        let by_anchor = self.by_anchor(leaf, intermediates, self.present(leaf, intermediates), end);
        if matches!(by_anchor, Some(Ok(()))) || self.armed() {
            return Ok(());
        }
        match by_anchor {
            Some(refused) if self.trust.pins.is_empty() => refused,
            _ => {
                let mut pinned = self.trust.pins.clone();
                if self.trust.tofu {
                    pinned.extend(self.book.pins());
                }
                let stranger = Stranger { shown, pinned, tofu: self.trust.tofu };
                Err(CertificateError::Other(OtherError(Arc::new(stranger))).into())
            }
        }
    }

    fn by_anchor(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        end: End,
    ) -> Option<Result<(), rustls::Error>> {
        let (roots, name) = self.roots.as_ref()?;
        let judge = || {
            let parsed = ParsedCertificate::try_from(leaf)?;
            if !identity::may_sign(leaf) {
                return Err(CertificateError::InvalidPurpose.into());
            }
            match (end, &self.clients) {
                (End::Client, Some(clients)) => {
                    clients.verify_client_cert(leaf, intermediates, now)?;
                }
                _ => {
                    verify_server_cert_signed_by_trust_anchor(
                        &parsed,
                        roots,
                        intermediates,
                        now,
                        self.algorithms.all,
                    )?;
                }
            }
            if let Some(name) = name {
                verify_server_name(&parsed, name)?;
            }
            Ok(())
        };
        Some(judge())
    }
}

impl Judge {
    /// In TLS 1.3 the scheme names the curve, and there is none of 521 bits here.
    fn tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signed.scheme == SignatureScheme::ECDSA_NISTP521_SHA512 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }
}

fn unix(wall: Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(wall.0).unwrap_or(0)))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, End::Server).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    /// None for a gateway: it shows the one certificate that it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, End::Client).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
