//! PEM files (RFC 7468), and what is usually wrong with them.

use std::{fs, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// No file of keys or certificates is larger; keeps a wrong path from filling the memory.
const MOST: u64 = 1 << 20;

pub(super) const NO_CERTIFICATE: &str =
    "holds no certificate; give PEM text that begins with -----BEGIN CERTIFICATE-----";

/// The certificates of a PEM file, in its order, at least one. The error says what is wrong with the file.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(file, &read(file)?)
}

/// The same for a text; `file` is what it is called in the error.
pub(super) fn certificates_in(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |text: &str| format!("{}: {text}", file.display());
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| problem("the PEM text is damaged; copy the file again, from -----BEGIN to -----END"))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(problem(if holds(text, "PRIVATE KEY-----") {
        "holds a private key and no certificate; give the certificate here"
    } else if holds(text, "-----BEGIN CERTIFICATE REQUEST") {
        "holds a certificate request; give the certificate that the CA issued for it"
    } else if is_der(text) {
        "is not PEM text; convert it with: openssl x509 -inform der -in FILE"
    } else {
        NO_CERTIFICATE
    }))
}

/// The private key of a PEM file. The error never holds any of its text.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    private_key_in(file, &read(file)?)
}

/// The same for a text; `file` is what it is called in the error.
pub(super) fn private_key_in(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let problem = |text: &str| format!("{}: {text}", file.display());
    if holds(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(text, "Proc-Type: 4,ENCRYPTED") {
        return Err(problem(
            "the private key is encrypted; give it without a passphrase (openssl pkey -in FILE)",
        ));
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(problem(if holds(text, "-----BEGIN CERTIFICATE") {
                "holds a certificate and no private key; give the key here"
            } else if holds(text, "-----BEGIN PUBLIC KEY") {
                "holds a public key; give the private one"
            } else if is_der(text) {
                "is not PEM text; convert it with: openssl pkey -inform der -in FILE"
            } else {
                "holds no private key; give PEM text that begins with -----BEGIN PRIVATE KEY----- or -----BEGIN EC \
             PRIVATE KEY-----"
            }))
        }
        Err(_) => Err(problem("the PEM text is damaged; copy the file again, from -----BEGIN to -----END")),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", file.display());
    let meta = fs::metadata(file).map_err(cannot)?;
    if !meta.is_file() || meta.len() > MOST {
        return Err(format!("{} is not a PEM file of at most 1 MiB", file.display()));
    }
    fs::read(file).map_err(cannot)
}

fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// DER begins with a SEQUENCE of a long form.
fn is_der(text: &[u8]) -> bool {
    text.starts_with(&[0x30, 0x82]) || text.starts_with(&[0x30, 0x81]) || text.starts_with(&[0x30, 0x77])
}
