//! TLS towards the appliances: both certificates, HTTP/2 inside.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

/// Shows our certificate, lets in only who has one of these issuers'. The error is a sentence that names the file.
pub(super) fn server(certificate: &Path, key: &Path, ca: &Path) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for anchor in certificates(ca)? {
        roots.add(anchor).map_err(|e| format!("{}: a certificate cannot be a CA: {e}", ca.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("{} cannot be used: {e}", ca.display()))?;
    // The library's own message is not passed on: it may describe the key.
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| format!("{} holds no private key in PEM that can be read", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, secret)
        .map_err(|_| format!("{} does not belong to {}", key.display(), certificate.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection shows its certificate: what was right for the last one may have expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("{} holds no certificate in PEM that can be read", file.display())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))
}
