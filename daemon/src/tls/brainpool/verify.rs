//! Whether a signature in a certificate or a handshake is right.

use std::{fmt, marker::PhantomData};

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

use super::{Arithmetic, Hash, Named};

/// ECDSA on one curve with one hash.
pub(in crate::tls) struct Ecdsa<C> {
    hash: Hash,
    curve: PhantomData<C>,
}

impl<C> Ecdsa<C> {
    pub(in crate::tls) const SHA256: Self = Self { hash: Hash::Sha256, curve: PhantomData };
    pub(in crate::tls) const SHA384: Self = Self { hash: Hash::Sha384, curve: PhantomData };
    pub(in crate::tls) const SHA512: Self = Self { hash: Hash::Sha512, curve: PhantomData };
}

/// What ring lacks on the NIST curves; TR-03116-3 has SHA-512 for every curve.
pub(in crate::tls) static P256_SHA512: Ecdsa<p256::NistP256> = Ecdsa::SHA512;
pub(in crate::tls) static P384_SHA512: Ecdsa<p384::NistP384> = Ecdsa::SHA512;

impl<C: Named> fmt::Debug for Ecdsa<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", C::default(), self.hash)
    }
}

impl<C: Arithmetic + Named> SignatureVerificationAlgorithm for Ecdsa<C> {
    fn verify_signature(
        &self,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if C::verify(public, self.hash, message, signature) { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        C::KEY
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.hash {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }
}
