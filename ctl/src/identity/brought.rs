//! A private key with its certificates that was made elsewhere.
//!
//! In: PEM, or PKCS#12 with its passphrase. Out: key and chain as the daemon takes them. Invariants: a passphrase comes
//! from a descriptor or from the standard input, never from the command line, is in no message, and is wiped when the
//! file has been read; no message holds a byte of the key.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use ladewart_proto::v1;
use p12_keystore::{CertificateBag, Pkcs12Archive, error::Error};
use zeroize::Zeroizing;

use super::{LONGEST, read};
use crate::failure::Failure;

/// Longest passphrase.
const LONGEST_PASSPHRASE: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct ImportKey {
    /// A name for it: a-z, 0-9 and -.
    name: String,
    /// PKCS#12 file (.p12, .pfx) with key and certificates, or PEM file with the certificates, the leaf first.
    file: PathBuf,
    /// PEM file with the private key, not encrypted; without it the key is in the file with the certificates.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Descriptor from which the passphrase of a PKCS#12 file is read, one line: 3 with `3< passphrase`. Without it
    /// the standard input: asked for on a terminal, read otherwise.
    #[arg(long, value_name = "NUMBER")]
    passphrase_fd: Option<u32>,
}

impl ImportKey {
    /// What the daemon is asked to take.
    pub(super) fn request(self) -> Result<v1::ImportIdentityRequest, Failure> {
        let wrong = |problem: &str| Failure::Usage(format!("{}: {problem}", self.file.display()));
        let length = std::fs::metadata(&self.file).map_err(|e| wrong(&e.to_string()))?.len();
        if length > LONGEST {
            return Err(wrong("is longer than 256 KiB; give one key with its certificates"));
        }
        let bytes = Zeroizing::new(std::fs::read(&self.file).map_err(|e| wrong(&e.to_string()))?);
        let (certificate, private_key) = if bytes.starts_with(&[0x30]) {
            if self.key.is_some() {
                return Err(wrong("is PKCS#12, which holds its own key; leave out --key"));
            }
            let passphrase = passphrase(self.passphrase_fd)?;
            pkcs12(&bytes, &passphrase).map_err(|problem| wrong(&problem))?
        } else {
            let text = Zeroizing::new(read(&self.file)?);
            let key = self.key.as_deref().map(read).transpose()?.map(Zeroizing::new);
            (blocks(&text, "CERTIFICATE"), blocks(key.as_ref().unwrap_or(&text), "PRIVATE KEY"))
        };
        Ok(v1::ImportIdentityRequest { name: self.name, certificate, private_key })
    }
}

/// One line, without its end.
fn passphrase(descriptor: Option<u32>) -> Result<Zeroizing<String>, Failure> {
    let wrong =
        |problem: &dyn std::fmt::Display| Failure::Usage(format!("the passphrase cannot be read: {problem}"));
    let mut text = Zeroizing::new(String::new());
    let length = match descriptor {
        Some(number) => {
            let file = File::open(Path::new("/dev/fd").join(number.to_string())).map_err(|e| wrong(&e))?;
            file.take(LONGEST_PASSPHRASE + 1).read_to_string(&mut text)
        }
        None if io::stdin().is_terminal() => {
            return rpassword::prompt_password("Passphrase: ").map(Zeroizing::new).map_err(|e| wrong(&e));
        }
        None => io::stdin().take(LONGEST_PASSPHRASE + 1).read_to_string(&mut text),
    }
    .map_err(|e| wrong(&e))?;
    if u64::try_from(length).is_ok_and(|length| length > LONGEST_PASSPHRASE) {
        return Err(wrong(&"it is longer than 4096 bytes"));
    }
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    Ok(Zeroizing::new(line.to_owned()))
}

/// Chain and key of a PKCS#12 file (RFC 7292), in PEM.
fn pkcs12(bytes: &[u8], passphrase: &str) -> Result<(String, String), String> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, passphrase).map_err(|error| explain(&error))?;
    let key = match &archive.keys[..] {
        [key] => key,
        [] => return Err("holds no private key; export it together with the certificate".to_owned()),
        more => return Err(format!("holds {} private keys; give a file with one", more.len())),
    };
    let id = key.local_key_id.as_ref().map(AsRef::as_ref);
    let marked = |bag: &&CertificateBag| id.is_some() && bag.local_key_id.as_deref() == id;
    let leaf = match (archive.certs.iter().find(marked), &archive.certs[..]) {
        (Some(leaf), _) | (None, [leaf]) => leaf,
        (None, []) => return Err("holds no certificate; export it together with the key".to_owned()),
        (None, _) => return Err("does not say which of its certificates belongs to the key".to_owned()),
    };
    let mut chain = vec![&leaf.cert];
    while let Some(last) = chain.last()
        && let Some(issuer) = archive.certs.iter().find(|bag| bag.cert.subject() == last.issuer())
        && !chain.contains(&&issuer.cert)
    {
        chain.push(&issuer.cert);
    }
    let certificates = chain.iter().map(|certificate| pem("CERTIFICATE", certificate.as_der())).collect();
    Ok((certificates, pem("PRIVATE KEY", key.key.as_der())))
}

/// The blocks of a PEM text with such a label; the text itself if there is none, for the daemon to say what is wrong.
fn blocks(text: &str, label: &str) -> String {
    let mut found = String::new();
    let mut inside = false;
    for line in text.lines() {
        let mark = line.trim_end().strip_suffix("-----");
        if let Some(begun) = mark.and_then(|line| line.strip_prefix("-----BEGIN ")) {
            inside = begun.ends_with(label);
        }
        if inside {
            found += line.trim_end();
            found.push('\n');
        }
        inside &= mark.is_none_or(|line| !line.starts_with("-----END "));
    }
    if found.is_empty() { text.to_owned() } else { found }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines + &format!("-----END {label}-----\n")
}

fn explain(error: &Error) -> String {
    match error {
        Error::MacError(_) => "the passphrase is wrong, or the file is damaged".to_owned(),
        Error::Pkcs5Error(_) | Error::UnpadError => "cannot be decrypted with this passphrase".to_owned(),
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => {
            "is protected in a way that is not known here; export it again with: openssl pkcs12 -export"
                .to_owned()
        }
        _ => "is not PKCS#12 that can be read; give a .p12 or .pfx file, or PEM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    const PASSPHRASE: &str = "Käse & Brot 17";

    /// Files of a chain of three and its key.
    struct Files(tempfile::TempDir, String, String);

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    impl Files {
        fn new() -> Self {
            let root =
                CertifiedIssuer::self_signed(params("root", true), KeyPair::generate().unwrap()).unwrap();
            let sub =
                CertifiedIssuer::signed_by(params("sub", true), KeyPair::generate().unwrap(), &root).unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = params("cls", false).signed_by(&key, &sub).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
            write("leaf.pem", &leaf.pem());
            write("others.pem", &(root.pem() + &sub.pem()));
            write("key.pem", &key.serialize_pem());
            let unix = |text: String| text.replace("\r\n", "\n");
            Self(dir, unix(leaf.pem() + &sub.pem() + &root.pem()), unix(key.serialize_pem()))
        }

        /// `openssl pkcs12 -export` with these options more.
        fn export(&self, options: &[&str]) -> Vec<u8> {
            let out = Command::new("openssl")
                .args([
                    "pkcs12",
                    "-export",
                    "-inkey",
                    "key.pem",
                    "-in",
                    "leaf.pem",
                    "-certfile",
                    "others.pem",
                ])
                .args(["-passout", &format!("pass:{PASSPHRASE}")])
                .args(options)
                .current_dir(self.0.path())
                .stderr(Stdio::inherit())
                .output()
                .expect("openssl is the peer of this test");
            assert!(out.status.success(), "{options:?}");
            out.stdout
        }
    }

    #[test]
    #[ignore = "needs openssl; `tests/run interop` runs it"]
    fn what_openssl_exports_is_read_with_new_and_with_old_algorithms() {
        let files = Files::new();
        let old = ["-legacy"];
        let aes128 =
            ["-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC", "-macalg", "sha512", "-iter", "5000"];
        let triple = ["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
        let open = ["-keypbe", "AES-256-CBC", "-certpbe", "NONE", "-name", "the box"];
        for options in [&[][..], &old, &aes128, &triple, &open, &["-nomac"]] {
            let bytes = files.export(options);
            let (chain, key) = pkcs12(&bytes, PASSPHRASE).unwrap_or_else(|e| panic!("{options:?}: {e}"));
            assert_eq!(chain, files.1, "{options:?}");
            assert_eq!(key, files.2, "{options:?}");
            if options != ["-nomac"] {
                let error = pkcs12(&bytes, "another one").unwrap_err();
                assert_eq!(error, "the passphrase is wrong, or the file is damaged", "{options:?}");
            }
        }
    }

    #[test]
    fn a_pem_file_with_everything_is_taken_apart() {
        let files = Files::new();
        let all = format!("Bag Attributes\n  x: y\n{}{}more\n", files.2, files.1);
        assert_eq!(blocks(&all, "CERTIFICATE"), files.1);
        assert_eq!(blocks(&all, "PRIVATE KEY"), files.2);
        assert_eq!(blocks("nothing", "PRIVATE KEY"), "nothing");
    }

    #[test]
    fn what_is_no_pkcs12_is_told() {
        assert!(pkcs12(&[0x30, 0x03, 0x02, 0x01, 0x03], "").unwrap_err().contains("is not PKCS#12"));
    }

    #[test]
    #[ignore = "needs openssl; `tests/run interop` runs it"]
    fn what_is_missing_is_told() {
        let files = Files::new();
        let bytes = files.export(&["-nokeys"]);
        assert!(pkcs12(&bytes, PASSPHRASE).unwrap_err().starts_with("holds no private key"));
        let whole = files.export(&[]);
        for length in 0..whole.len().min(600) {
            pkcs12(&whole[..length], PASSPHRASE).unwrap_err();
        }
    }
}
