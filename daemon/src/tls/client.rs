//! Client configurations, one per side.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{ServerName, UnixTime},
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
};

use super::{Judge, Profile, Shown, group_name, provider};
use crate::{clock::Clock, config::GatewayTls, identity::Identity};

/// Lets rustls judge dates by our clock.
#[derive(Debug)]
pub(crate) struct OurTime(pub(crate) Clock);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.now().wall.0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// What opens TLS sessions with the gateway.
#[derive(Debug, Clone)]
pub struct HanClient {
    config: Arc<ClientConfig>,
    judge: Arc<Judge>,
}

impl HanClient {
    /// Mutual TLS of the HAN profile. Each session shows what `own` holds when it begins.
    pub fn new(own: &Shown, judge: Arc<Judge>, tls: GatewayTls, clock: Clock) -> Result<Self, String> {
        let profile = Profile::Han(tls.into());
        let provider = Arc::new(provider(profile));
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
            .with_protocol_versions(profile.versions())
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(judge.clone())
            .with_client_cert_resolver(Arc::new(own.clone()));
        // TR-03116-3: a session ends after 48 h at the latest; a resumed one would live on.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), judge })
    }

    /// The configuration to connect with.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Judges and remembers what the gateway shows.
    #[must_use]
    pub fn judge(&self) -> &Judge {
        &self.judge
    }
}

/// TLS inside the channel, towards the backend: chain, dates and name are judged.
pub fn backend_client(
    roots: RootCertStore,
    identity: Option<&Identity>,
    clock: Clock,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(provider(Profile::Inner));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| e.to_string())?;
    let config = ClientConfig::builder_with_details(provider, Arc::new(OurTime(clock)))
        .with_protocol_versions(Profile::Inner.versions())
        .map_err(|e| e.to_string())?
        .with_webpki_verifier(verifier);
    Ok(match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())))
        }
        None => config.with_no_client_auth(),
    })
}

/// A host name or address as rustls takes it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        format!("{host:?} is neither a DNS name nor an IP address that a certificate could carry")
    })
}

/// Version, suite and group of a session: `"TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 secp256r1"`.
#[must_use]
pub fn session(connection: &rustls::CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite().map(|s| s.suite());
    let suite = suite.as_ref().and_then(rustls::CipherSuite::as_str).unwrap_or("unknown suite");
    match connection.negotiated_key_exchange_group() {
        Some(group) => format!("{version} {suite} {}", group_name(group.name())),
        None => format!("{version} {suite}"),
    }
}
