//! Key exchange (RFC 8422 §5.10; RFC 8734 for TLS 1.3).

use std::{fmt, marker::PhantomData};

use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
        ring::default_provider,
    },
};

use super::{Arithmetic, Named, Secret};

/// Bytes that no secret comes of are drawn again; the smallest n is 0.66 of its power of two, so that 128 failures
/// in a row mean a broken generator.
const DRAWS: usize = 128;

/// A group of one version of TLS: brainpool has other numbers in TLS 1.3.
pub(in crate::tls) struct Group<C> {
    name: u16,
    version: ProtocolVersion,
    curve: PhantomData<C>,
}

impl<C> Group<C> {
    /// For TLS 1.2.
    pub(in crate::tls) const fn tls12(name: u16) -> Self {
        Self { name, version: ProtocolVersion::TLSv1_2, curve: PhantomData }
    }

    /// For TLS 1.3.
    pub(in crate::tls) const fn tls13(name: u16) -> Self {
        Self { name, version: ProtocolVersion::TLSv1_3, curve: PhantomData }
    }
}

impl<C> fmt::Debug for Group<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NamedGroup::Unknown(self.name).fmt(f)
    }
}

impl<C: Arithmetic + Named> SupportedKxGroup for Group<C> {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = draw::<C>(default_provider().secure_random)?;
        let public = C::public(&secret);
        Ok(Box::new(Exchange { name: NamedGroup::Unknown(self.name), secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::Unknown(self.name)
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == self.version
    }
}

/// A new secret.
pub(super) fn draw<C: Arithmetic>(random: &dyn SecureRandom) -> Result<Secret<C>, GetRandomFailed> {
    let mut bytes = elliptic_curve::zeroize::Zeroizing::new(vec![0; C::LENGTH]);
    for _ in 0..DRAWS {
        random.fill(&mut bytes)?;
        if let Some(secret) = C::secret(&bytes) {
            return Ok(secret);
        }
    }
    Err(GetRandomFailed)
}

struct Exchange<C: Arithmetic> {
    name: NamedGroup,
    secret: Secret<C>,
    public: Vec<u8>,
}

impl<C: Arithmetic + Named> ActiveKeyExchange for Exchange<C> {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        match C::agree(&self.secret, peer) {
            Some(common) => Ok(SharedSecret::from(&common[..])),
            None => Err(PeerMisbehaved::InvalidKeyShare.into()),
        }
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        self.name
    }
}
