//! Client configurations, one per side.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{ServerName, UnixTime},
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Direction, Fault, Judge, Offer, Profile, Shown, group_name, provider,
    scsv::{self, Line},
};
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
    /// TLS 1.2 without the renegotiation SCSV.
    shorter: Arc<ClientConfig>,
    scsv: Arc<AtomicU8>,
    judge: Arc<Judge>,
}

/// What is known of a gateway and the SCSV, as a number.
mod scsv_state {
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const SENT: u8 = 1;
    pub(super) const OMITTED: u8 = 2;
}

impl HanClient {
    /// Mutual TLS of the HAN profile. Each session shows what `own` holds when it begins.
    pub fn new(own: &Shown, judge: Arc<Judge>, tls: GatewayTls, clock: Clock) -> Result<Self, String> {
        let offer = Offer::from(tls);
        let config = Arc::new(client(
            provider(Profile::Han(offer)),
            Profile::Han(offer),
            judge.clone(),
            Arc::new(own.clone()),
            clock,
        )?);
        let old = Profile::Han(Offer { tls13: false, ..offer });
        let mut without = provider(old);
        without.cipher_suites = without.cipher_suites.into_iter().map(scsv::suite).collect();
        let resolver = Arc::new(scsv::Resolver(own.clone()));
        let shorter = Arc::new(client(without, old, judge.clone(), resolver, clock)?);
        let known = match tls.omit_scsv {
            None => scsv_state::UNKNOWN,
            Some(false) => scsv_state::SENT,
            Some(true) => scsv_state::OMITTED,
        };
        Ok(Self { config, shorter, scsv: Arc::new(AtomicU8::new(known)), judge })
    }

    /// Opens a session over a stream.
    pub async fn connect<S>(&self, name: ServerName<'static>, stream: S) -> io::Result<HanStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.scsv.load(Relaxed) == scsv_state::OMITTED {
            return TlsConnector::from(self.shorter.clone()).connect(name, Line::shorter(stream)).await;
        }
        TlsConnector::from(self.config.clone()).connect(name, Line::through(stream)).await
    }

    /// Whether the next session is to be tried at once without the SCSV: the gateway has refused the first of them with
    /// the alert that a Sagemcom SMARTY IQ has for it. True once: [`HanClient::tried_without_scsv`] says what came of it.
    #[must_use]
    pub fn try_without_scsv(&self, fault: &Fault) -> bool {
        fault
            .alert
            .is_some_and(|alert| alert.direction == Direction::Received && alert.name == "illegal_parameter")
            && self.scsv.compare_exchange(scsv_state::UNKNOWN, scsv_state::OMITTED, Relaxed, Relaxed).is_ok()
    }

    /// Whether the session without the SCSV came about; if not, it is sent again from now on.
    pub fn tried_without_scsv(&self, helped: bool) {
        if !helped {
            self.scsv.store(scsv_state::SENT, Relaxed);
        }
    }

    /// Judges and remembers what the gateway shows.
    #[must_use]
    pub fn judge(&self) -> &Judge {
        &self.judge
    }
}

/// A session with the gateway.
pub type HanStream<S> = TlsStream<Line<S>>;

fn client(
    provider: CryptoProvider,
    profile: Profile,
    judge: Arc<Judge>,
    own: Arc<dyn ResolvesClientCert>,
    clock: Clock,
) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(OurTime(clock)))
        .with_protocol_versions(profile.versions())
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(judge)
        .with_client_cert_resolver(own);
    // TR-03116-3: a session ends after 48 h at the latest; a resumed one would live on.
    config.resumption = Resumption::disabled();
    Ok(config)
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
