use std::fs;

use base64::Engine as _;
use rcgen::{
    CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    date_time_ymd,
};

use super::*;

fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, KeyPair) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(vec!["cls".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Ladewart CLS");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2028, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key)
}

/// Loads the two texts as files.
fn load(certificate: &str, key: &str) -> Result<Identity, IdentityError> {
    let directory = tempfile::tempdir().unwrap();
    let (c, k) = (directory.path().join("cls.pem"), directory.path().join("cls.key"));
    fs::write(&c, certificate).unwrap();
    fs::write(&k, key).unwrap();
    Identity::load(&c, &k, Profile::HAN)
}

/// The key's SEC1 form (RFC 5915), taken out of its PKCS#8 form: the OCTET STRING at the end.
fn sec1(key: &KeyPair) -> String {
    let der = key.serialize_der();
    let at = der.windows(3).position(|w| w[0] == 0x30 && w[2] == 0x02 && w[1] > 0x40).unwrap_or_else(|| {
        der.windows(4).rposition(|w| w[0] == 0x30 && w[1] == 0x81 && w[3] == 0x02).unwrap()
    });
    let body = base64::engine::general_purpose::STANDARD.encode(&der[at..]);
    format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n")
}

#[test]
fn both_curves_and_both_key_formats_load() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let (certificate, key) = made(algorithm);
        for text in [key.serialize_pem(), sec1(&key)] {
            let identity = load(&certificate, &text).unwrap();
            assert_eq!(identity.status().subject, "CN=Ladewart CLS");
            assert_eq!(identity.status().not_before.to_string(), "2026-01-01T00:00:00.000Z");
            assert_eq!(identity.status().not_after.to_string(), "2028-01-01T00:00:00.000Z");
            let leaf = identity.certified_key().cert[0].clone();
            assert_eq!(identity.status().fingerprint, fingerprint(&leaf));
        }
    }
}

#[test]
fn what_openssl_writes_before_the_key_is_skipped() {
    let (certificate, key) = made(&PKCS_ECDSA_P256_SHA256);
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    assert!(load(&certificate, &format!("{parameters}{}", sec1(&key))).is_ok());
}

#[test]
fn each_wrong_file_is_told_and_no_key_is_shown() {
    let (certificate, key) = made(&PKCS_ECDSA_P256_SHA256);
    let (_, other) = made(&PKCS_ECDSA_P256_SHA256);
    let (edwards, edwards_key) = made(&PKCS_ED25519);
    let pem = key.serialize_pem();
    let body: String = pem.lines().filter(|l| !l.starts_with('-')).collect();
    let encrypted =
        format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let legacy = format!(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{body}\n-----END EC PRIVATE KEY-----\n"
    );
    let damaged = pem.replace(&body[10..14], "!!!!");
    let shortened = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", &body[..40]);
    let other_pem = other.serialize_pem();
    let wrong_key = [
        ("", "holds no private key; give PEM text"),
        (certificate.as_str(), "holds a certificate and no private key"),
        (&encrypted, "the private key is encrypted; give it without a passphrase"),
        (&legacy, "the private key is encrypted"),
        (&damaged, "the PEM text is damaged"),
        (
            &shortened,
            "the private key cannot be used; the gateway's profile takes an ECDSA key on P-256, P-384 or a brainpool",
        ),
        (&other_pem, "does not belong to the certificate in"),
    ];
    for (text, says) in wrong_key {
        let error = load(&certificate, text).unwrap_err();
        assert!(matches!(error, IdentityError::Key(_)), "{error:?}");
        assert!(error.to_string().contains(says) && error.to_string().contains("cls.key"), "{error}");
        assert!(!error.to_string().contains(&body[..12]), "{error}");
    }
    let error = load(&edwards, &edwards_key.serialize_pem()).unwrap_err();
    assert!(error.to_string().contains("is not for ECDSA"), "{error}");

    let request = certificate.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, says) in [
        ("", "holds no certificate"),
        (pem.as_str(), "holds a private key and no certificate"),
        (request.as_str(), "holds a certificate request"),
        (no_x509, "the certificate cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", "the PEM text is damaged"),
    ] {
        let error = load(text, &pem).unwrap_err();
        assert!(matches!(error, IdentityError::Certificate(_)), "{error:?}");
        assert!(error.to_string().contains(says) && error.to_string().contains("cls.pem"), "{error}");
        assert!(!error.to_string().contains(&body[..12]), "{error}");
    }
}

#[test]
fn the_key_is_in_no_debug_text() {
    let (certificate, key) = made(&PKCS_ECDSA_P256_SHA256);
    let text = format!("{:?}", load(&certificate, &key.serialize_pem()).unwrap());
    assert!(text.contains("Ladewart CLS") && !text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let error =
        Identity::load(Path::new("/nonexistent/c.pem"), Path::new("/nonexistent/c.key"), Profile::HAN);
    assert!(error.unwrap_err().to_string().starts_with("/nonexistent/c.pem cannot be read: "));
}

#[test]
fn garbage_is_no_certificate() {
    for garbage in [&b""[..], b"\x30\x82\xff\xff", b"hello", &[0x30; 400]] {
        assert_eq!(describe(&CertificateDer::from(garbage)), None);
    }
}
