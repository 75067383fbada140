//! Certificates made at start: EC P-256, SHA-256, client and server use, as on the gateway's HAN leg
//! (BSI TR-03116-3). Everything is thrown away with the lab.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    version::TLS12,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its private key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `name`, with `name` as subject alternative name.
    pub fn issue(&self, name: &str) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = leaf(name)?.signed_by(&key, &self.issuer)?;
        Ok(Identity::new(certificate.der().clone(), certificate.pem(), &key))
    }

    /// The certificate that a request (PKCS#10, PEM) asks for, and this authority's own: a chain, PEM.
    pub fn answer(&self, request: &str) -> anyhow::Result<String> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        Ok(request.signed_by(&self.issuer)?.pem() + &self.pem())
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        Ok(roots)
    }

    /// A TLS 1.2 server that lets in who has a certificate of this authority.
    pub fn acceptor(&self, own: &Identity) -> anyhow::Result<TlsAcceptor> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider()).build()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.certificate.clone()], own.private_key())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// A TLS 1.2 client that shows `own` and trusts servers of this authority.
    pub fn connector(&self, own: &Identity) -> anyhow::Result<TlsConnector> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(vec![own.certificate.clone()], own.private_key())
            .context("the client certificate cannot be used")?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Identity {
    fn new(certificate: CertificateDer<'static>, certificate_pem: String, key: &KeyPair) -> Self {
        Self {
            certificate_pem,
            key_pem: key.serialize_pem(),
            certificate,
            key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    /// A certificate that signs itself, as gateways of the first generation use on HAN.
    pub fn self_signed(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = leaf(name)?.self_signed(&key)?;
        Ok(Self::new(certificate.der().clone(), certificate.pem(), &key))
    }

    /// SHA-256 of the certificate, hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.certificate).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// A TLS 1.2 server with this certificate that asks for none.
    pub fn open_acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.private_key())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

fn leaf(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
