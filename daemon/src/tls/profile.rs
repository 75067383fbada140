//! Which groups, suites and signatures a side of the daemon may use.

use std::sync::LazyLock;

use rustls::{
    NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, ring},
    pki_types::SignatureVerificationAlgorithm,
    version::{TLS12, TLS13},
};

use super::{
    brainpool::{Ecdsa, Group, Keys, P256, P256_SHA512, P384, P384_SHA512, P512},
    cbc,
};
use crate::config::GatewayTls;

/// A side of the daemon, by what its peers demand of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Towards the gateway: BSI TR-03116-3, communication in the HAN.
    Han(Offer),
    /// Inside the channel, towards the backend.
    Inner,
}

/// What a gateway is offered beside TLS 1.2 with both GCM suites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    /// TLS 1.3, with the numbers that brainpool has there.
    pub tls13: bool,
    /// TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, the last choice.
    pub cbc: bool,
}

impl From<GatewayTls> for Offer {
    fn from(GatewayTls { tls13, cbc, omit_scsv: _ }: GatewayTls) -> Self {
        Self { tls13, cbc }
    }
}

impl Profile {
    /// What every gateway has to understand.
    pub const HAN: Self = Self::Han(Offer { tls13: false, cbc: false });

    /// The protocol versions that are offered.
    #[must_use]
    pub fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Han(Offer { tls13: false, .. }) => TLS12_ONLY,
            Self::Han(Offer { tls13: true, .. }) | Self::Inner => BOTH_VERSIONS,
        }
    }
}

static TLS12_ONLY: &[&SupportedProtocolVersion] = &[&TLS12];

static BOTH_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// rustls would list the suites of TLS 1.3 in the ClientHello of a TLS 1.2 configuration, too: they are apart.
static TLS13_SUITES: &[SupportedCipherSuite] =
    &[ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_AES_256_GCM_SHA384];

static TLS12_SUITES: &[SupportedCipherSuite] = &[
    ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

/// The first stands for the key share of TLS 1.3, which rustls takes without asking for its version: it has to be one
/// of both.
static NIST_GROUPS: &[&dyn SupportedKxGroup] = &[ring::kx_group::SECP256R1, ring::kx_group::SECP384R1];

/// RFC 7027 §2.
static BRAINPOOL_TLS12: &[&dyn SupportedKxGroup] =
    &[&Group::<P256>::tls12(26), &Group::<P384>::tls12(27), &Group::<P512>::tls12(28)];

/// RFC 8734 §2.
static BRAINPOOL_TLS13: &[&dyn SupportedKxGroup] =
    &[&Group::<P256>::tls13(31), &Group::<P384>::tls13(32), &Group::<P512>::tls13(33)];

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// A scheme and what it may mean; TLS 1.3 takes the first alone.
type Mapping = (SignatureScheme, &'static [Algorithm]);

const BP256_SHA256: Algorithm = &Ecdsa::<P256>::SHA256;
const BP256_SHA384: Algorithm = &Ecdsa::<P256>::SHA384;
const BP256_SHA512: Algorithm = &Ecdsa::<P256>::SHA512;
const BP384_SHA256: Algorithm = &Ecdsa::<P384>::SHA256;
const BP384_SHA384: Algorithm = &Ecdsa::<P384>::SHA384;
const BP384_SHA512: Algorithm = &Ecdsa::<P384>::SHA512;
const BP512_SHA256: Algorithm = &Ecdsa::<P512>::SHA256;
const BP512_SHA384: Algorithm = &Ecdsa::<P512>::SHA384;
const BP512_SHA512: Algorithm = &Ecdsa::<P512>::SHA512;

/// What may sign a certificate or a handshake: ECDSA alone.
static HAN_SIGNATURES: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: HAN_ALL, mapping: HAN_MAPPING };

static HAN_ALL: &[Algorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    &P256_SHA512,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    &P384_SHA512,
    BP256_SHA256,
    BP256_SHA384,
    BP256_SHA512,
    BP384_SHA256,
    BP384_SHA384,
    BP384_SHA512,
    BP512_SHA256,
    BP512_SHA384,
    BP512_SHA512,
];

/// In TLS 1.2 the first three name the hash alone; the curve is the certificate's (RFC 8422 §5.1.3).
static HAN_MAPPING: &[Mapping] = &[
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[
            webpki::ring::ECDSA_P256_SHA256,
            webpki::ring::ECDSA_P384_SHA256,
            BP256_SHA256,
            BP384_SHA256,
            BP512_SHA256,
        ],
    ),
    (
        SignatureScheme::ECDSA_NISTP384_SHA384,
        &[
            webpki::ring::ECDSA_P384_SHA384,
            webpki::ring::ECDSA_P256_SHA384,
            BP256_SHA384,
            BP384_SHA384,
            BP512_SHA384,
        ],
    ),
    (
        SignatureScheme::ECDSA_NISTP521_SHA512,
        &[BP512_SHA512, BP384_SHA512, BP256_SHA512, &P384_SHA512, &P256_SHA512],
    ),
    (SignatureScheme::Unknown(0x081a), &[BP256_SHA256]),
    (SignatureScheme::Unknown(0x081b), &[BP384_SHA384]),
    (SignatureScheme::Unknown(0x081c), &[BP512_SHA512]),
];

/// The same and what ring knows beside: inside the channel there are RSA and Ed25519, too.
static INNER_SIGNATURES: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let ring = ring::default_provider().signature_verification_algorithms;
    let mut all = HAN_ALL.to_vec();
    for algorithm in ring.all {
        let there = |other: &Algorithm| {
            other.signature_alg_id() == algorithm.signature_alg_id()
                && other.public_key_alg_id() == algorithm.public_key_alg_id()
        };
        if !all.iter().any(there) {
            all.push(*algorithm);
        }
    }
    let mut mapping = HAN_MAPPING.to_vec();
    for (scheme, algorithms) in ring.mapping {
        if !mapping.iter().any(|(other, _)| other == scheme) {
            mapping.push((*scheme, algorithms));
        }
    }
    WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
});

/// The cryptography of one side.
///
/// All groups are offered whatever our own certificate's curve: a strict peer refuses a certificate whose curve is not
/// listed (RFC 8422 §5.1.1).
#[must_use]
pub fn provider(profile: Profile) -> CryptoProvider {
    let base = ring::default_provider();
    match profile {
        Profile::Han(Offer { tls13, cbc }) => {
            let mut suites = if tls13 { TLS13_SUITES.to_vec() } else { Vec::new() };
            suites.extend(TLS12_SUITES);
            if cbc {
                suites.push(cbc::SUITE);
            }
            let mut groups = [NIST_GROUPS, BRAINPOOL_TLS12].concat();
            if tls13 {
                groups.extend(BRAINPOOL_TLS13);
            }
            CryptoProvider {
                cipher_suites: suites,
                kx_groups: groups,
                signature_verification_algorithms: HAN_SIGNATURES,
                key_provider: &Keys,
                ..base
            }
        }
        Profile::Inner => CryptoProvider {
            kx_groups: [&base.kx_groups, BRAINPOOL_TLS12, BRAINPOOL_TLS13].concat(),
            signature_verification_algorithms: *INNER_SIGNATURES,
            key_provider: &Keys,
            ..base
        },
    }
}

/// A group by its name; rustls knows the numbers of brainpool only.
#[must_use]
pub fn group_name(group: NamedGroup) -> String {
    match u16::from(group) {
        26 => "brainpoolP256r1".to_owned(),
        27 => "brainpoolP384r1".to_owned(),
        28 => "brainpoolP512r1".to_owned(),
        31 => "brainpoolP256r1tls13".to_owned(),
        32 => "brainpoolP384r1tls13".to_owned(),
        33 => "brainpoolP512r1tls13".to_owned(),
        _ => format!("{group:?}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    fn numbers(offer: Offer) -> (Vec<CipherSuite>, Vec<u16>) {
        let han = provider(Profile::Han(offer));
        (
            han.cipher_suites.iter().map(SupportedCipherSuite::suite).collect(),
            han.kx_groups.iter().map(|group| group.name().into()).collect(),
        )
    }

    #[test]
    fn the_gateway_is_offered_the_profile_and_nothing_else() {
        let gcm = [
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ];
        assert_eq!(numbers(Offer::default()), (gcm.to_vec(), vec![23, 24, 26, 27, 28]));
        assert_eq!(Profile::HAN.versions(), [&TLS12]);

        let (suites, groups) = numbers(Offer { tls13: true, cbc: false });
        let tls13 = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384];
        assert_eq!(suites, [&tls13[..], &gcm].concat());
        assert_eq!(groups, [23, 24, 26, 27, 28, 31, 32, 33]);

        let (suites, _) = numbers(Offer { tls13: false, cbc: true });
        let last = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256;
        assert_eq!(suites, [&gcm[..], &[last]].concat());
    }

    #[test]
    fn each_signature_of_the_profile_has_its_algorithm() {
        let han = provider(Profile::HAN).signature_verification_algorithms;
        let schemes: Vec<u16> = han.supported_schemes().into_iter().map(Into::into).collect();
        assert_eq!(schemes, [0x0403, 0x0503, 0x0603, 0x081a, 0x081b, 0x081c]);
        assert_eq!(han.all.len(), 15, "five curves, three hashes");
        let inner = provider(Profile::Inner).signature_verification_algorithms;
        let ring = ring::default_provider().signature_verification_algorithms;
        assert!(ring.supported_schemes().iter().all(|s| inner.supported_schemes().contains(s)));
    }
}
