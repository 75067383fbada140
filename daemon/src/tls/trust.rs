//! Whether a gateway's certificate is the right one.
//!
//! A pin names one certificate; the administrator vouches for it as it stands, so its issuer, its dates and its
//! CA flag are not judged (gateways before TR-03109-1 2.0 show a self-signed certificate). Anchors judge the chain,
//! the dates and, if asked, the name. In both cases the peer proves that it holds the key.

use std::{
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::identity;

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

/// What a certificate is judged by.
#[derive(Debug)]
pub(super) enum Anchor {
    /// SHA-256 of the certificate itself.
    Pin([u8; 32]),
    /// The chain ends here; with a name the certificate carries it.
    Roots(RootCertStore, Option<ServerName<'static>>),
}

/// The certificate is not the pinned one.
#[derive(Debug)]
pub(super) struct PinMismatch {
    pub(super) shown: [u8; 32],
    pub(super) pinned: [u8; 32],
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, pinned) = (identity::hex(&self.shown), identity::hex(&self.pinned));
        write!(f, "its certificate has the fingerprint {shown}, pinned is {pinned}")
    }
}

impl std::error::Error for PinMismatch {}

/// Judges a gateway's certificate and remembers the last one shown, refused or not.
#[derive(Debug)]
pub(super) struct Verifier {
    anchor: Anchor,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl Verifier {
    pub(super) fn new(anchor: Anchor, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { anchor, algorithms, seen: Mutex::new(None) }
    }

    /// The certificate that was shown last.
    pub(super) fn seen(&self) -> Option<CertificateDer<'static>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone().into_owned());
        match &self.anchor {
            Anchor::Pin(pinned) => {
                let shown = identity::fingerprint(leaf);
                if shown != *pinned {
                    let mismatch = OtherError(std::sync::Arc::new(PinMismatch { shown, pinned: *pinned }));
                    return Err(CertificateError::Other(mismatch).into());
                }
            }
            Anchor::Roots(roots, name) => {
                let leaf = ParsedCertificate::try_from(leaf)?;
                verify_server_cert_signed_by_trust_anchor(
                    &leaf,
                    roots,
                    intermediates,
                    now,
                    self.algorithms.all,
                )?;
                if let Some(name) = name {
                    verify_server_name(&leaf, name)?;
                }
            }
        }
        Ok(ServerCertVerified::assertion())
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
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
