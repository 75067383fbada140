//! TLS between the site and who administers it: mutual in every direction, HTTP/2 inside.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
};

use crate::{
    clock::Clock,
    identity::{self, Identity},
    tls::{Profile, provider},
};

/// HTTP/2 over TLS (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// Lets rustls judge dates by our clock.
#[derive(Debug)]
struct OurTime(Clock);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.now().wall.0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// What an operator's certificate is judged by.
pub(super) enum Anchor {
    /// SHA-256 of the certificate itself.
    Pin([u8; 32]),
    /// The chain ends here; dates and name are judged, too.
    Roots(RootCertStore),
}

/// Where we connect: shows our certificate, judges the operator's.
pub(super) fn client(identity: &Identity, anchor: Anchor, clock: Clock) -> Result<Arc<ClientConfig>, String> {
    let provider = inner();
    let verifier: Arc<dyn ServerCertVerifier> = match anchor {
        Anchor::Pin(pin) => Arc::new(Pinned { pin, algorithms: provider.signature_verification_algorithms }),
        Anchor::Roots(roots) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| e.to_string())?
        }
    };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![H2.to_vec()];
    // Each connection shows its certificates: what was right for the last one may have expired.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Where we are connected to: shows our certificate, lets in only who has one of these issuers'.
pub(super) fn server(
    identity: &Identity,
    roots: RootCertStore,
    clock: Clock,
) -> Result<Arc<ServerConfig>, String> {
    let provider = inner();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| e.to_string())?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn inner() -> Arc<CryptoProvider> {
    Arc::new(provider(Profile::Inner))
}

/// Takes one certificate and no other; whoever pinned it vouches for it as it stands.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Mismatch {
    shown: [u8; 32],
    pinned: [u8; 32],
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, pinned) = (identity::hex(&self.shown), identity::hex(&self.pinned));
        write!(f, "the certificate has the fingerprint {shown}, pinned is {pinned}")
    }
}

impl std::error::Error for Mismatch {}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = identity::fingerprint(leaf);
        if shown == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = OtherError(Arc::new(Mismatch { shown, pinned: self.pin }));
        Err(CertificateError::Other(mismatch).into())
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
