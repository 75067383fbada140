//! A request for a certificate (PKCS#10, RFC 2986), for a key on any curve of the profile.
//!
//! In: a private key and whom the certificate is for. Out: PEM. Invariant: what it asks for is what a gateway's client
//! and server need, and no more.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    SignatureScheme,
    pki_types::{AlgorithmIdentifier, DnsName, alg_id},
    sign::SigningKey,
};

use super::{
    Subject,
    der::{bits, oid, tag, value},
};

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const COUNTRY: &[u8] = &[0x55, 0x04, 0x06];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// PKCS#9 extensionRequest.
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// A BOOLEAN that is true.
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];

/// Writes the request; `name` is the common name of a subject without one. The error says what is wrong with the
/// subject.
pub(super) fn write(key: &dyn SigningKey, name: &str, subject: &Subject) -> Result<String, String> {
    const NO_KEY: &str = "a request can only be made for an ECDSA key";
    let spki = key.public_key().ok_or(NO_KEY)?;
    let info = value(
        tag::SEQUENCE,
        &[
            &value(tag::INTEGER, &[&[0]]),
            &distinguished(name, subject)?,
            spki.as_ref(),
            &value(tag::FIRST, &[&extensions(subject)?]),
        ],
    );
    let signer = key.choose_scheme(SCHEMES).ok_or(NO_KEY)?;
    let algorithm = signature_algorithm(signer.scheme()).ok_or(NO_KEY)?;
    let signature = signer.sign(&info).map_err(|e| format!("the request cannot be signed: {e}"))?;
    let request =
        value(tag::SEQUENCE, &[&info, &value(tag::SEQUENCE, &[algorithm.as_ref()]), &bits(&signature)]);
    Ok(pem("CERTIFICATE REQUEST", &request))
}

/// The hash alone counts; the key takes the one that fits its curve.
pub(crate) const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
];

/// ecdsa-with-SHA2 (RFC 5758 §3.2), without the outer SEQUENCE.
pub(crate) fn signature_algorithm(scheme: SignatureScheme) -> Option<AlgorithmIdentifier> {
    match scheme {
        SignatureScheme::ECDSA_NISTP256_SHA256 => Some(alg_id::ECDSA_SHA256),
        SignatureScheme::ECDSA_NISTP384_SHA384 => Some(alg_id::ECDSA_SHA384),
        SignatureScheme::ECDSA_NISTP521_SHA512 => Some(alg_id::ECDSA_SHA512),
        _ => None,
    }
}

/// A text in PEM (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let body = STANDARD.encode(der);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}

/// Name (RFC 5280 §4.1.2.4).
fn distinguished(name: &str, subject: &Subject) -> Result<Vec<u8>, String> {
    for text in [&subject.common_name, &subject.organization] {
        if text.len() > 64 || text.chars().any(char::is_control) {
            return Err(format!("{text:?} is too long or no text; use at most 64 characters"));
        }
    }
    let country = &subject.country;
    if !(country.is_empty() || country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase())) {
        return Err(format!("{country:?} is no country; write two letters like \"DE\""));
    }
    let common_name = if subject.common_name.is_empty() { name } else { &subject.common_name };
    let part = |kind: &[u8], string: u8, text: &str| {
        if text.is_empty() {
            return Vec::new();
        }
        let attribute = value(tag::SEQUENCE, &[&oid(kind), &value(string, &[text.as_bytes()])]);
        value(tag::SET, &[&attribute])
    };
    Ok(value(
        tag::SEQUENCE,
        &[
            &part(COUNTRY, tag::PRINTABLE_STRING, country),
            &part(ORGANIZATION, tag::UTF8_STRING, &subject.organization),
            &part(COMMON_NAME, tag::UTF8_STRING, common_name),
        ],
    ))
}

/// The attribute that asks for extensions.
fn extensions(subject: &Subject) -> Result<Vec<u8>, String> {
    let mut names = Vec::new();
    for name in &subject.dns_names {
        names.extend(match name.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => value(tag::IP_ADDRESS, &[&address.octets()]),
            Ok(IpAddr::V6(address)) => value(tag::IP_ADDRESS, &[&address.octets()]),
            Err(_) if DnsName::try_from(name.as_str()).is_ok() => value(tag::DNS_NAME, &[name.as_bytes()]),
            Err(_) => return Err(format!("{name:?} is not a DNS name; write it like \"cls.example\"")),
        });
    }
    let mut extensions = Vec::new();
    if !names.is_empty() {
        let names = value(tag::SEQUENCE, &[&names]);
        extensions
            .extend(value(tag::SEQUENCE, &[&oid(ALTERNATIVE_NAME), &value(tag::OCTET_STRING, &[&names])]));
    }
    // digitalSignature: the first of eight bits, the seven after it are not written.
    let usage = value(tag::BIT_STRING, &[&[7, 0x80]]);
    extensions
        .extend(value(tag::SEQUENCE, &[&oid(KEY_USAGE), CRITICAL, &value(tag::OCTET_STRING, &[&usage])]));
    // The gateway's client in socks5 and sni, its server in listen.
    let purposes = value(tag::SEQUENCE, &[&oid(CLIENT_AUTH), &oid(SERVER_AUTH)]);
    extensions
        .extend(value(tag::SEQUENCE, &[&oid(EXTENDED_KEY_USAGE), &value(tag::OCTET_STRING, &[&purposes])]));
    let extensions = value(tag::SEQUENCE, &[&extensions]);
    Ok(value(tag::SEQUENCE, &[&oid(EXTENSION_REQUEST), &value(tag::SET, &[&extensions])]))
}
