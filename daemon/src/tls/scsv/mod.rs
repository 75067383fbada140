//! A ClientHello without TLS_EMPTY_RENEGOTIATION_INFO_SCSV (RFC 5746 §3.3), for gateways that refuse it.
//!
//! In: a configuration of TLS 1.2, a stream. Out: the same, which leave the two bytes out: on the line ([`Line`]), in
//! the hash over the handshake, and in what our key signs of it. All three or none: the peer would find a wrong
//! Finished or a wrong signature. Invariant: what is not a whole ClientHello with the SCSV passes as it is.
//!
//! rustls puts the SCSV into each ClientHello that offers TLS 1.2 and has no switch for it. It never renegotiates, so
//! that nothing is lost by leaving it out.

mod line;

use std::sync::Arc;

use rustls::{
    CipherSuite, Error, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite,
    client::ResolvesClientCert,
    crypto::{
        CipherSuiteCommon,
        hash::{Context, Hash, HashAlgorithm, Output},
        ring,
    },
    pki_types::SubjectPublicKeyInfoDer,
    sign::{CertifiedKey, Signer, SigningKey},
};

pub use self::line::{Line, written};
use super::{Shown, cbc};

const SCSV: [u8; 2] = [0x00, 0xff];

/// Type and length of a handshake message.
const HEAD: usize = 4;

/// A handshake that begins with a ClientHello, without the SCSV in it; `None` if there is nothing to leave out.
///
/// ClientHello (RFC 5246 §7.4.1.2): type 1, length (3 bytes), version (2), random (32), session id (1 + n), suites
/// (2 + n), and what follows.
#[must_use]
pub fn without(handshake: &[u8]) -> Option<Vec<u8>> {
    let [1, a, b, c, ..] = *handshake else {
        return None;
    };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let body = handshake.get(HEAD..HEAD + length)?;
    let session = usize::from(*body.get(34)?);
    let list = 35 + session;
    let size = usize::from(u16::from_be_bytes([*body.get(list)?, *body.get(list + 1)?]));
    let suites = body.get(list + 2..list + 2 + size)?;
    if suites.len() % 2 != 0 {
        return None;
    }
    let at = suites.as_chunks::<2>().0.iter().position(|suite| *suite == SCSV)?;

    let at = HEAD + list + 2 + 2 * at;
    let mut shorter = [&handshake[..at], &handshake[at + 2..]].concat();
    let [.., a, b, c] = u32::try_from(length - 2).ok()?.to_be_bytes();
    shorter[1..HEAD].copy_from_slice(&[a, b, c]);
    let size = u16::try_from(size - 2).ok()?.to_be_bytes();
    shorter[HEAD + list..HEAD + list + 2].copy_from_slice(&size);
    Some(shorter)
}

/// The suites of TLS 1.2 with a hash that leaves the SCSV out. One of TLS 1.3 stays as it is: it is not offered then.
pub(super) fn suite(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    match suite.suite() {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => SupportedCipherSuite::Tls12(&GCM128),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => SupportedCipherSuite::Tls12(&GCM256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 => SupportedCipherSuite::Tls12(&CBC128),
        _ => suite,
    }
}

static GCM128: Tls12CipherSuite =
    hashed(&ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &SHA256);
static GCM256: Tls12CipherSuite =
    hashed(&ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &SHA384);
static CBC128: Tls12CipherSuite = hashed(&cbc::SUITE, &SHA256);

static SHA256: Shorter = Shorter(tls12(&cbc::SUITE).common.hash_provider);
static SHA384: Shorter =
    Shorter(tls12(&ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384).common.hash_provider);

const fn tls12(suite: &'static SupportedCipherSuite) -> &'static Tls12CipherSuite {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite,
        SupportedCipherSuite::Tls13(_) => panic!("not a suite of TLS 1.2"),
    }
}

const fn hashed(suite: &'static SupportedCipherSuite, hash: &'static dyn Hash) -> Tls12CipherSuite {
    let suite = tls12(suite);
    Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: hash,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        prf_provider: suite.prf_provider,
        kx: suite.kx,
        sign: suite.sign,
        aead_alg: suite.aead_alg,
    }
}

/// Hashes a handshake without the SCSV in its ClientHello.
struct Shorter(&'static dyn Hash);

impl Hash for Shorter {
    fn start(&self) -> Box<dyn Context> {
        Box::new(Hashing { inner: self.0.start(), begun: false })
    }

    fn hash(&self, data: &[u8]) -> Output {
        self.0.hash(data)
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.0.algorithm()
    }
}

struct Hashing {
    inner: Box<dyn Context>,
    /// The ClientHello comes first and whole.
    begun: bool,
}

impl Context for Hashing {
    fn fork_finish(&self) -> Output {
        self.inner.fork_finish()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(Self { inner: self.inner.fork(), begun: self.begun })
    }

    fn finish(self: Box<Self>) -> Output {
        self.inner.finish()
    }

    fn update(&mut self, data: &[u8]) {
        let shorter = if self.begun { None } else { without(data) };
        self.begun |= !data.is_empty();
        self.inner.update(shorter.as_deref().unwrap_or(data));
    }
}

/// Shows the same certificate; what its key signs has no SCSV in it.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Shown);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.0.current()?;
        let key = Arc::new(Key(own.key.clone()));
        Some(Arc::new(CertifiedKey { cert: own.cert.clone(), key, ocsp: own.ocsp.clone() }))
    }

    fn has_certs(&self) -> bool {
        self.0.current().is_some()
    }
}

#[derive(Debug)]
struct Key(Arc<dyn SigningKey>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Pen(self.0.choose_scheme(offered)?)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct Pen(Box<dyn Signer>);

impl Signer for Pen {
    /// In TLS 1.2 a client signs the handshake's messages, from the ClientHello on (RFC 5246 §7.4.8).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(without(message).as_deref().unwrap_or(message))
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[cfg(test)]
mod tests;
