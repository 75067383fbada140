//! The device's signature over the chain.
//!
//! In: the head of the journal. Out: an entry that names it and signs it, itself part of the chain. Invariant: the key
//! is made here, lies in a file that only the daemon's user may read, and is in no entry and no message.
//!
//! ```text
//! signature = ECDSA-P256-SHA256( "ladewart.journal.signature.1" ‖ 0x00 ‖ u64(sequence) ‖ hash(sequence) )
//! ```

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::identity::hex;

/// Kind of the entries that sign.
pub(super) const SIGNED: &str = "journal.signed";
/// Kind of the entries that say what was taken off the beginning.
pub(super) const ROTATED: &str = "journal.rotated";

const DOMAIN: &[u8] = b"ladewart.journal.signature.1\0";
const FILE: &str = "journal.key";
/// A public key on P-256 as SubjectPublicKeyInfo is this, and the point in 65 bytes (RFC 5480 §2).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What is signed.
fn message(sequence: u64, hash: &[u8]) -> Vec<u8> {
    [DOMAIN, &sequence.to_be_bytes(), hash].concat()
}

/// Signs. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    key: Arc<KeyPair>,
}

/// Without the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key", &self.fingerprint()).finish()
    }
}

impl Signer {
    /// The key in this directory, made at the first start. The error names the file.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let path = directory.join(FILE);
        let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
        let key = match fs::read_to_string(&path) {
            // The library's own message is not passed on: it may describe the key.
            Ok(pem) => {
                KeyPair::from_pem(&pem).map_err(|_| wrong(&"holds no key; restore it from a backup"))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| wrong(&error))?;
                write(directory, &path, &key.serialize_pem()).map_err(|error| wrong(&error))?;
                key
            }
            Err(error) => return Err(wrong(&error)),
        };
        Ok(Self { key: Arc::new(key) })
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo), hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.key.subject_public_key_info()))
    }

    /// The particulars of an entry that signs a head.
    pub(super) fn body(&self, sequence: u64, hash: &[u8]) -> Result<Value, String> {
        let signature = self.key.sign(&message(sequence, hash)).map_err(|error| error.to_string())?;
        Ok(json!({
            "sequence": sequence,
            "hash": hex(hash),
            "algorithm": "ecdsa-p256-sha256",
            "public_key": BASE64.encode(self.key.subject_public_key_info()),
            "signature": BASE64.encode(signature),
        }))
    }
}

fn write(directory: &Path, path: &Path, pem: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    // Left over from a start that was cut short.
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(directory)?.sync_all()
}

/// What an entry of kind [`SIGNED`] says of the entry before it: the fingerprint of the key that signed, or what is
/// wrong.
pub(super) fn check(body: &[u8], sequence: u64, hash: &[u8]) -> Result<String, String> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "its signature cannot be read".to_owned())?;
    if body["sequence"] != json!(sequence) || body["hash"] != json!(hex(hash)) {
        return Err("its signature is over another entry than the one before it".to_owned());
    }
    let bytes = |name: &str| {
        body[name].as_str().and_then(|text| BASE64.decode(text).ok()).ok_or("its signature cannot be read")
    };
    let (public, signature) = (bytes("public_key")?, bytes("signature")?);
    let point = public.strip_prefix(&SPKI[..]).ok_or("its key is not on P-256")?;
    let key = webpki::ring::ECDSA_P256_SHA256;
    key.verify_signature(point, &message(sequence, hash), &signature)
        .map_err(|_| "its signature does not fit the entry before it".to_owned())?;
    Ok(hex(&Sha256::digest(&public)))
}
