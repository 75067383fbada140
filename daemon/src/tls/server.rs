//! The server's side on the HAN: the gateway connects to us (HKS4, HKS5).

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Judge, Offer, Profile, client::OurTime, provider};
use crate::clock::Clock;

/// The certificate that new sessions show, in either direction. Clones share it; sessions that stand keep theirs.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Shown {
    /// From now on new sessions show this.
    pub fn set(&self, certified: Option<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
    }

    /// What a session that begins now shows.
    #[must_use]
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        self.current().is_some()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// Mutual TLS of the HAN profile for sessions that the gateway opens: no resumption, no tickets.
pub fn han_server(
    own: &Shown,
    judge: Arc<Judge>,
    offer: Offer,
    clock: Clock,
) -> Result<Arc<ServerConfig>, String> {
    let profile = Profile::Han(offer);
    let provider = Arc::new(provider(profile));
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(profile.versions())
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(judge)
        .with_cert_resolver(Arc::new(own.clone()));
    // TR-03116-3: a session ends after 48 h at the latest; a resumed one would live on.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The side towards the EVSEs (OCPP security profiles 2 and 3): a client's certificate is judged if one is shown; who
/// must show one is decided afterwards.
pub fn evse_server(
    own: &crate::identity::Identity,
    issuers: Option<rustls::RootCertStore>,
    clock: Clock,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(provider(Profile::Inner));
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?;
    let builder = match issuers {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let judge =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| e.to_string())?;
            builder.with_client_cert_verifier(judge)
        }
    };
    let shown = Shown::default();
    shown.set(Some(own.certified_key()));
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(shown))))
}
