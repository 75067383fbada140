//! TLS between the site and who administers it: mutual in every direction, HTTP/2 inside.
//!
//! Certificates are judged as a gateway's are: their dates only while our clock is set, so that a device that lost its
//! clock can still be administered, and told the time.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, crypto::CryptoProvider,
    pki_types::ServerName, server::NoServerSessionStorage, sign::SingleCertAndKey,
};

use crate::{
    clock::Clock,
    identity::Identity,
    tls::{Judge, OurTime, Profile, provider},
};

/// HTTP/2 over TLS (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// What an operator's certificate is judged by.
pub(super) enum Anchor {
    /// SHA-256 of the certificate itself.
    Pin([u8; 32]),
    /// The chain ends here; dates and this name are judged, too.
    Roots(RootCertStore, ServerName<'static>),
}

/// Where we connect: shows our certificate, judges the operator's.
pub(super) fn client(identity: &Identity, anchor: Anchor, clock: Clock) -> Result<Arc<ClientConfig>, String> {
    let provider = inner();
    let judge = match anchor {
        // Whoever pinned it vouches for it as it stands.
        Anchor::Pin(pin) => Judge::pinned_to(pin, &provider, clock),
        Anchor::Roots(roots, name) => Judge::issued_by(roots, Some(name), &provider, clock)?,
    };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(judge)
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
    let judge = Judge::issued_by(roots, None, &provider, clock)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(judge)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn inner() -> Arc<CryptoProvider> {
    Arc::new(provider(Profile::Inner))
}
