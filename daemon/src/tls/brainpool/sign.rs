//! Our own key: made, read, and signed with.

use std::{fmt, sync::Arc};

use elliptic_curve::zeroize::Zeroizing;
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::{GetRandomFailed, KeyProvider, ring::default_provider},
    pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer},
    sign::{Signer, SigningKey, public_key_to_spki},
};

use super::{Arithmetic, Hash, Named, P256, P384, P512, Secret, kx::draw};
use crate::identity::{Algorithm, request::pem};

/// Reads a private key: a brainpool one here, any other by ring.
#[derive(Debug)]
pub(in crate::tls) struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let ours = read::<P256>(&key, P256_SCHEMES)
            .or_else(|| read::<P384>(&key, P384_SCHEMES))
            .or_else(|| read::<P512>(&key, P512_SCHEMES));
        match ours {
            Some(key) => Ok(key),
            None => default_provider().key_provider.load_private_key(key),
        }
    }
}

/// A scheme and what it hashes with.
type Scheme = (SignatureScheme, Hash);

// RFC 8734 §3.
const P256_TLS13: Scheme = (SignatureScheme::Unknown(0x081a), Hash::Sha256);
const P384_TLS13: Scheme = (SignatureScheme::Unknown(0x081b), Hash::Sha384);
const P512_TLS13: Scheme = (SignatureScheme::Unknown(0x081c), Hash::Sha512);

// In TLS 1.2 these name the hash alone (RFC 5246 §7.4.1.4.1, RFC 8422 §5.1.3).
const SHA256: Scheme = (SignatureScheme::ECDSA_NISTP256_SHA256, Hash::Sha256);
const SHA384: Scheme = (SignatureScheme::ECDSA_NISTP384_SHA384, Hash::Sha384);
const SHA512: Scheme = (SignatureScheme::ECDSA_NISTP521_SHA512, Hash::Sha512);

/// The best first; a peer of TLS 1.3 that knows brainpool offers the first, one of TLS 1.2 may offer any other.
const P256_SCHEMES: &[Scheme] = &[P256_TLS13, SHA256, SHA384, SHA512];
const P384_SCHEMES: &[Scheme] = &[P384_TLS13, SHA384, SHA512, SHA256];
const P512_SCHEMES: &[Scheme] = &[P512_TLS13, SHA512, SHA384, SHA256];

/// `None` if the key does not name this curve. A SEC1 key that names none is not taken for brainpool: its bytes fit
/// several curves.
fn read<C: Arithmetic + Named>(
    key: &PrivateKeyDer<'_>,
    schemes: &'static [Scheme],
) -> Option<Arc<dyn SigningKey>> {
    let der = key.secret_der();
    // The algorithm's identifier without its first half, id-ecPublicKey.
    let curve = &C::KEY.as_ref()[9..];
    if !der.windows(curve.len()).any(|window| window == curve) {
        return None;
    }
    let secret = Arc::new(C::read(key)?);
    let spki = public_key_to_spki(&C::KEY, C::public(&secret));
    Some(Arc::new(Key { secret, spki, schemes }))
}

/// A new private key (PKCS#8, PEM).
pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<String>, GetRandomFailed> {
    match algorithm {
        Algorithm::EcdsaP256 => on::<p256::NistP256>(),
        Algorithm::EcdsaP384 => on::<p384::NistP384>(),
        Algorithm::EcdsaBrainpoolP256r1 => on::<P256>(),
        Algorithm::EcdsaBrainpoolP384r1 => on::<P384>(),
        Algorithm::EcdsaBrainpoolP512r1 => on::<P512>(),
    }
}

fn on<C: Arithmetic>() -> Result<Zeroizing<String>, GetRandomFailed> {
    let secret = draw::<C>(default_provider().secure_random)?;
    C::write(&secret).map(|der| Zeroizing::new(pem("PRIVATE KEY", &der))).ok_or(GetRandomFailed)
}

struct Key<C: Arithmetic> {
    secret: Arc<Secret<C>>,
    spki: SubjectPublicKeyInfoDer<'static>,
    schemes: &'static [Scheme],
}

/// Without the key.
impl<C: Arithmetic + Named> fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key on {:?}", C::default())
    }
}

impl<C: Arithmetic + Named> SigningKey for Key<C> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let (scheme, hash) = *self.schemes.iter().find(|(scheme, _)| offered.contains(scheme))?;
        Some(Box::new(Pen { secret: self.secret.clone(), scheme, hash }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.spki.clone())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

struct Pen<C: Arithmetic> {
    secret: Arc<Secret<C>>,
    scheme: SignatureScheme,
    hash: Hash,
}

/// Without the key.
impl<C: Arithmetic + Named> fmt::Debug for Pen<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.scheme, C::default())
    }
}

impl<C: Arithmetic + Named> Signer for Pen<C> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut entropy = Zeroizing::new([0; 32]);
        default_provider().secure_random.fill(&mut entropy[..])?;
        Ok(C::sign(&self.secret, self.hash, message, &entropy[..]))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
