//! Which groups, suites and signatures a side of the daemon may use.

use rustls::{
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, ring},
    pki_types::SignatureVerificationAlgorithm,
    version::{TLS12, TLS13},
};

/// A side of the daemon, by what its peers demand of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Towards the gateway: BSI TR-03116-3, communication in the HAN.
    Han,
    /// Inside the channel, towards the backend.
    Inner,
}

impl Profile {
    /// The protocol versions that are offered.
    #[must_use]
    pub fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Han => HAN_VERSIONS,
            Self::Inner => INNER_VERSIONS,
        }
    }
}

static HAN_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS12];

static INNER_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Without the suites of TLS 1.3: rustls would list them in the ClientHello of a TLS 1.2 configuration, too.
static HAN_SUITES: &[SupportedCipherSuite] = &[
    ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

/// All groups are offered whatever our own certificate's curve: a strict peer refuses a certificate whose curve is
/// not listed here (RFC 8422 §5.1.1).
static HAN_GROUPS: &[&dyn SupportedKxGroup] = &[ring::kx_group::SECP256R1, ring::kx_group::SECP384R1];

/// What may sign a certificate or a handshake: ECDSA alone.
static HAN_SIGNATURES: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: HAN_ALL, mapping: HAN_MAPPING };

static HAN_ALL: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
];

/// In TLS 1.2 a scheme names the hash alone; the curve is the certificate's (RFC 8422 §5.1.3).
static HAN_MAPPING: &[(SignatureScheme, &[&dyn SignatureVerificationAlgorithm])] = &[
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[webpki::ring::ECDSA_P256_SHA256, webpki::ring::ECDSA_P384_SHA256],
    ),
    (
        SignatureScheme::ECDSA_NISTP384_SHA384,
        &[webpki::ring::ECDSA_P384_SHA384, webpki::ring::ECDSA_P256_SHA384],
    ),
];

/// The cryptography of one side.
#[must_use]
pub fn provider(profile: Profile) -> CryptoProvider {
    let base = ring::default_provider();
    match profile {
        Profile::Han => CryptoProvider {
            cipher_suites: HAN_SUITES.to_vec(),
            kx_groups: HAN_GROUPS.to_vec(),
            signature_verification_algorithms: HAN_SIGNATURES,
            ..base
        },
        Profile::Inner => base,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, NamedGroup};

    use super::*;

    #[test]
    fn the_gateway_is_offered_the_profile_and_nothing_else() {
        let han = provider(Profile::Han);
        let suites: Vec<_> = han.cipher_suites.iter().map(SupportedCipherSuite::suite).collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            ]
        );
        let groups: Vec<_> = han.kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups, [NamedGroup::secp256r1, NamedGroup::secp384r1]);
        assert_eq!(Profile::Han.versions(), [&TLS12]);
    }
}
