//! ECDH and ECDSA on the brainpool curves (RFC 5639), and on the NIST curves where ring lacks a hash, as rustls takes
//! them.
//!
//! In: points, private keys and signatures as they come over the line or from a file. Out: what `profile` puts into
//! the provider. Invariants: a point is used when it is uncompressed, on the curve and not infinity; a signature when
//! it is DER, and the only DER of its two numbers; a private key is in no message and is wiped when it is dropped.
//!
//! The curves have cofactor 1: what is on the curve and not infinity is in the group, there is no small subgroup.
//! That the other root (r, n − s) of a signature verifies as well is ECDSA (X9.62) and stays: OpenSSL makes both.

mod kx;
mod p512;
mod sign;
mod verify;

use std::{fmt, ops::Add};

use ecdsa::{EcdsaCurve, SignatureSize, der, hazmat};
use elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytesSize, NonZeroScalar, PublicKey, SecretKey,
    array::ArraySize,
    ecdh,
    pkcs8::{AssociatedOid, DecodePrivateKey, EncodePrivateKey},
    sec1::{FromSec1Point, ModulusSize, ToSec1Point},
    zeroize::Zeroizing,
};
use rustls::pki_types::{AlgorithmIdentifier, PrivateKeyDer};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

pub use self::sign::generate;
pub(super) use self::{
    kx::Group,
    sign::Keys,
    verify::{Ecdsa, P256_SHA512, P384_SHA512},
};

/// brainpoolP256r1.
pub(super) type P256 = bp256::BrainpoolP256r1;
/// brainpoolP384r1.
pub(super) type P384 = bp384::BrainpoolP384r1;
/// brainpoolP512r1.
pub(super) type P512 = p512::BrainpoolP512r1;

/// What a signature is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

/// A curve as certificates and TLS name it.
pub(super) trait Named: fmt::Debug + Default + Send + Sync + 'static {
    /// id-ecPublicKey with the curve (RFC 5480 §2.1.1), without the outer SEQUENCE.
    const KEY: AlgorithmIdentifier;
}

/// id-ecPublicKey and a curve of brainpool (RFC 5639 §4.1): 1.3.36.3.3.2.8.1.1.x.
macro_rules! named {
    ($curve:ty, $x:literal) => {
        impl Named for $curve {
            const KEY: AlgorithmIdentifier = AlgorithmIdentifier::from_slice(&[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x09, 0x2b, 0x24, 0x03, 0x03,
                0x02, 0x08, 0x01, 0x01, $x,
            ]);
        }
    };
}

named!(P256, 7);
named!(P384, 11);
named!(P512, 13);

impl Named for p256::NistP256 {
    const KEY: AlgorithmIdentifier = rustls::pki_types::alg_id::ECDSA_P256;
}

impl Named for p384::NistP384 {
    const KEY: AlgorithmIdentifier = rustls::pki_types::alg_id::ECDSA_P384;
}

/// A private key that is wiped when it is dropped.
pub(super) struct Secret<C: CurveArithmetic>(SecretKey<C>);

/// What is computed on a curve, in bytes.
pub(super) trait Arithmetic: CurveArithmetic + Sized {
    /// The secret of these bytes; `None` if they are no number from 1 to n − 1.
    fn secret(bytes: &[u8]) -> Option<Secret<Self>>;
    /// Length of a secret.
    const LENGTH: usize;
    /// A secret out of a file (RFC 5915, RFC 5958); `None` if it is not for this curve.
    fn read(key: &PrivateKeyDer<'_>) -> Option<Secret<Self>>;
    /// PKCS#8.
    fn write(secret: &Secret<Self>) -> Option<Zeroizing<Vec<u8>>>;
    /// The uncompressed point of a secret.
    fn public(secret: &Secret<Self>) -> Vec<u8>;
    /// The x coordinate of the common point; `None` if the peer's is none that may be used.
    fn agree(secret: &Secret<Self>, peer: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
    /// A signature in DER; the number that is used once comes from secret, message and `entropy` together (RFC 6979
    /// §3.6): a weak generator does not betray the key, nor does a fault in a repeated computation.
    fn sign(secret: &Secret<Self>, hash: Hash, message: &[u8], entropy: &[u8]) -> Vec<u8>;
    /// Whether the signature is this key's.
    fn verify(public: &[u8], hash: Hash, message: &[u8], signature: &[u8]) -> bool;
}

/// Uncompressed and on the curve; compressed points are not negotiated (RFC 8422 §5.1.2).
fn point<C>(bytes: &[u8]) -> Option<PublicKey<C>>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    if bytes.first() == Some(&4) { PublicKey::from_sec1_bytes(bytes).ok() } else { None }
}

impl<C> Arithmetic for C
where
    C: EcdsaCurve + CurveArithmetic + AssociatedOid,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
    SignatureSize<C>: ArraySize,
    der::MaxSize<C>: ArraySize,
    <FieldBytesSize<C> as Add>::Output: Add<der::MaxOverhead> + ArraySize,
{
    const LENGTH: usize = <FieldBytesSize<C> as elliptic_curve::array::typenum::Unsigned>::USIZE;

    fn secret(bytes: &[u8]) -> Option<Secret<Self>> {
        // `from_slice` pads what is short; a secret is as long as the curve.
        if bytes.len() == Self::LENGTH { SecretKey::from_slice(bytes).ok().map(Secret) } else { None }
    }

    fn read(key: &PrivateKeyDer<'_>) -> Option<Secret<Self>> {
        match key {
            PrivateKeyDer::Pkcs8(der) => SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Sec1(der) => SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
            _ => None,
        }
        .map(Secret)
    }

    fn write(secret: &Secret<Self>) -> Option<Zeroizing<Vec<u8>>> {
        secret.0.to_pkcs8_der().ok().map(|document| document.to_bytes())
    }

    fn public(secret: &Secret<Self>) -> Vec<u8> {
        secret.0.public_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn agree(secret: &Secret<Self>, peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let peer = point::<C>(peer)?;
        let common = ecdh::diffie_hellman(secret.0.to_nonzero_scalar(), peer.as_affine());
        Some(Zeroizing::new(common.raw_secret_bytes().to_vec()))
    }

    fn sign(secret: &Secret<Self>, hash: Hash, message: &[u8], entropy: &[u8]) -> Vec<u8> {
        let scalar: Zeroizing<NonZeroScalar<C>> = Zeroizing::new(secret.0.to_nonzero_scalar());
        let digest = hash.digest(message);
        let (signature, _) = match hash {
            Hash::Sha256 => hazmat::sign_prehashed_rfc6979::<C, Sha256>(&scalar, &digest, entropy),
            Hash::Sha384 => hazmat::sign_prehashed_rfc6979::<C, Sha384>(&scalar, &digest, entropy),
            Hash::Sha512 => hazmat::sign_prehashed_rfc6979::<C, Sha512>(&scalar, &digest, entropy),
        };
        signature.to_der().as_bytes().to_vec()
    }

    fn verify(public: &[u8], hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let Some(public) = point::<C>(public) else {
            return false;
        };
        let Ok(signature) = ecdsa::Signature::<C>::from_der(signature) else {
            return false;
        };
        hazmat::verify_prehashed(&public.to_projective(), &hash.digest(message), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests;
