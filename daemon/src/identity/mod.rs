//! Who we are towards a peer: a certificate chain and its private key.
//!
//! In: two PEM files, or the device's own [`Store`]. Out: an [`Identity`] for TLS, and what may be shown of a
//! certificate. Invariant: the key belongs to the certificate, and no message ever holds a byte of a key.

pub(crate) mod der;
mod file;
mod pem;
mod pins;
pub(crate) mod request;
mod store;

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    Error, InconsistentKeys, SignatureAlgorithm,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

pub use self::{
    pem::certificates,
    pins::{LONGEST as LONGEST_TOFU, PinBook},
    store::{Algorithm, Entry, Selected, Store, StoreError, Subject, check_name},
};
use crate::{
    smgw::CertificateStatus,
    time::Wall,
    tls::{Profile, provider},
};

/// Why there is no identity. The text names the file and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate file is to be replaced.
    #[error("{0}")]
    Certificate(String),
    /// The key file is to be replaced.
    #[error("{0}")]
    Key(String),
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    status: CertificateStatus,
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a certificate chain, leaf first, and the private key of the leaf (PKCS#8 or SEC1).
    pub fn load(certificate: &Path, key: &Path, profile: Profile) -> Result<Self, IdentityError> {
        let chain = certificates(certificate).map_err(IdentityError::Certificate)?;
        let secret = pem::private_key(key).map_err(IdentityError::Key)?;
        Self::new(chain, secret, profile, certificate, key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        secret: PrivateKeyDer<'static>,
        profile: Profile,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, IdentityError> {
        let bad_certificate =
            |text: &str| IdentityError::Certificate(format!("{}: {text}", certificate.display()));
        let bad_key = |text: &str| IdentityError::Key(format!("{}: {text}", key.display()));
        let Some(leaf) = chain.first() else {
            return Err(bad_certificate(pem::NO_CERTIFICATE));
        };
        let status = describe(leaf).ok_or_else(|| bad_certificate(UNREADABLE))?;
        let wanted = match profile {
            Profile::Han(_) => {
                "the gateway's profile takes an ECDSA key on P-256, P-384 or a brainpool r1 curve"
            }
            Profile::Inner => {
                "use an ECDSA key on P-256, P-384 or a brainpool r1 curve, or an RSA key of at least 2048 bits"
            }
        };
        // The library's own message is not passed on: it may describe the key.
        let signing = provider(profile)
            .key_provider
            .load_private_key(secret)
            .map_err(|_| bad_key(&format!("the private key cannot be used; {wanted}")))?;
        if matches!(profile, Profile::Han(_)) && signing.algorithm() != SignatureAlgorithm::ECDSA {
            return Err(bad_key(&format!("the private key is not for ECDSA; {wanted}")));
        }
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) => Ok(Self { certified: Arc::new(certified), status }),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(bad_key(&format!(
                "the private key does not belong to the certificate in {}; give the key that it was issued for, and \
                 the leaf certificate first",
                certificate.display()
            ))),
            Err(_) => Err(bad_certificate(UNREADABLE)),
        }
    }

    /// For TLS.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// What can be shown of it.
    #[must_use]
    pub fn status(&self) -> &CertificateStatus {
        &self.status
    }
}

const UNREADABLE: &str = "the certificate cannot be read; give an X.509 version 3 certificate";

/// SHA-256 over the DER form.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

/// Two digits per byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 64 hexadecimal digits, with or without colons.
#[must_use]
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// Whether its key may sign a handshake: key usage has digitalSignature or is absent (RFC 5280 §4.2.1.3, RFC 8422
/// §5.1). webpki does not look at it.
#[must_use]
pub fn may_sign(leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf.as_ref()) else {
        return false;
    };
    match parsed.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Whether a leaf of ours can open sessions with a gateway (RFC 5280 §4.2.1.3, §4.2.1.12). The error says why not.
fn usable(leaf: &CertificateDer<'_>, has_issuers: bool) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(leaf.as_ref()).map_err(|_| UNREADABLE.to_owned())?;
    if !may_sign(leaf) {
        return Err("its key usage lacks digitalSignature; ask the CA for a certificate for TLS".to_owned());
    }
    if let Ok(Some(usage)) = parsed.extended_key_usage()
        && !(usage.value.client_auth || usage.value.server_auth || usage.value.any)
    {
        return Err("its extended key usage is not for TLS; ask the CA for clientAuth".to_owned());
    }
    // A self-signed one often carries the flag; a gateway that compares whole certificates does not mind.
    if has_issuers && parsed.is_ca() {
        return Err("the first certificate is a CA's; give the leaf first".to_owned());
    }
    Ok(())
}

/// What can be shown of a certificate; `None` if it is none.
#[must_use]
pub fn describe(certificate: &CertificateDer<'_>) -> Option<CertificateStatus> {
    let (_, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    let wall = |time: ASN1Time| Wall(time.timestamp().saturating_mul(1000));
    Some(CertificateStatus {
        subject: parsed.subject().to_string(),
        fingerprint: fingerprint(certificate),
        not_before: wall(parsed.validity().not_before),
        not_after: wall(parsed.validity().not_after),
    })
}

#[cfg(test)]
mod tests;
