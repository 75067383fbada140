//! Certificates of operators, right and wrong.

use std::{fs, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::{
    identity,
    tls::{Profile, provider},
};

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pem: String,
    key: Arc<KeyPair>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `host`, with a URI where one is given.
    pub(super) fn leaf(&self, host: &str, uri: Option<&str>, dates: Dates) -> Leaf {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        (params.not_before, params.not_after) = match dates {
            Dates::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
            Dates::Past => (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1)),
            Dates::Future => (date_time_ymd(2099, 1, 1), date_time_ymd(2100, 1, 1)),
        };
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Leaf { certificate: certificate.der().clone(), pem: certificate.pem(), key: Arc::new(key) }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority and shows `own`.
    pub(super) fn client(&self, own: Option<&Leaf>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::new(provider(Profile::Inner)))
            .with_protocol_versions(Profile::Inner.versions())
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            Some(own) => config.with_client_auth_cert(vec![own.certificate.clone()], own.secret()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A server that lets in clients of this authority and shows `own`.
    pub(super) fn server(&self, own: &Leaf) -> Arc<ServerConfig> {
        let provider = Arc::new(provider(Profile::Inner));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(Profile::Inner.versions())
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![own.certificate.clone()], own.secret())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

impl Leaf {
    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub(super) fn fingerprint(&self) -> String {
        identity::hex(&identity::fingerprint(&self.certificate))
    }

    /// Writes `name.pem` and `name.key`.
    pub(super) fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.pem")), &self.pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), self.key.serialize_pem()).unwrap();
    }
}
