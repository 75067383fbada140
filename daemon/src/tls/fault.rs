//! An error of a handshake in words, with the alert that went over the line.

use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, pki_types::UnixTime};

use super::trust::Stranger;
use crate::time::Wall;

/// Who sent an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Received,
    /// We.
    Sent,
}

/// A TLS alert by its name in RFC 5246 §7.2 and RFC 8446 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Who sent it.
    pub direction: Direction,
    /// `"unknown_ca"`.
    pub name: &'static str,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::Received => "received alert ",
            Direction::Sent => "sent alert ",
        })?;
        f.write_str(self.name)
    }
}

/// Why a handshake or a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The alert, as far as one was exchanged.
    pub alert: Option<Alert>,
    reason: String,
}

impl Fault {
    /// Reads the error that the TLS layer gave.
    #[must_use]
    pub fn new(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => Self { alert: alert(inner), reason: reason(inner) },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self { alert: None, reason: "the peer closed the connection without an alert".to_owned() }
            }
            None => Self { alert: None, reason: crate::smgw::io_reason(error) },
        }
    }
}

/// `received alert unknown_ca: the peer does not know the issuer of our certificate`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.alert, self.reason.is_empty()) {
            (Some(alert), true) => write!(f, "{alert}"),
            (Some(alert), false) if alert.direction == Direction::Received => {
                write!(f, "{alert}: {}", self.reason)
            }
            (Some(alert), false) => write!(f, "{} ({alert})", self.reason),
            (None, _) => f.write_str(&self.reason),
        }
    }
}

fn alert(error: &Error) -> Option<Alert> {
    let sent = |description| Some(Alert { direction: Direction::Sent, name: alert_name(description) });
    match error {
        Error::AlertReceived(description) => {
            Some(Alert { direction: Direction::Received, name: alert_name(*description) })
        }
        Error::InvalidCertificate(e) => sent(e.clone().into()),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => sent(AlertDescription::ProtocolVersion),
        Error::PeerIncompatible(_) => sent(AlertDescription::HandshakeFailure),
        Error::NoCertificatesPresented => sent(AlertDescription::CertificateRequired),
        _ => None,
    }
}

/// Why, as far as the alert's name does not say it.
fn reason(error: &Error) -> String {
    let text = match error {
        Error::AlertReceived(description) => match description {
            AlertDescription::HandshakeFailure => {
                "the peer accepts none of our suites, groups or signatures, or misses a certificate"
            }
            AlertDescription::UnknownCA => "the peer does not know our certificate or its issuer",
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => "the peer refuses our certificate",
            AlertDescription::CertificateRequired => "the peer demands a certificate from us",
            AlertDescription::CertificateExpired => "the peer holds our certificate for expired",
            AlertDescription::CertificateRevoked => "the peer holds our certificate for revoked",
            AlertDescription::ProtocolVersion => "the peer does not speak our TLS version",
            AlertDescription::UnrecognisedName => "the peer does not serve the name that we asked for",
            _ => "",
        },
        Error::InvalidCertificate(e) => return certificate(e),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "the peer does not speak our TLS version",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "the peer offers none of our suites"
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => "the peer offers none of our groups",
        Error::PeerIncompatible(
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
        ) => "the peer takes none of the signatures that our key can make",
        Error::InvalidMessage(_) => return format!("the peer does not speak TLS here: {error}"),
        Error::NoCertificatesPresented => "the peer shows no certificate",
        other => return other.to_string(),
    };
    text.to_owned()
}

fn certificate(error: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        Wall(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
    };
    match error {
        CertificateError::Expired => "its certificate is expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}", at(not_after))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("its certificate is not valid before {}, our clock says {}", at(not_before), at(time))
        }
        CertificateError::UnknownIssuer => "its certificate is not issued by a trusted CA".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {}; it carries {}",
            expected.to_str(),
            if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::BadSignature => {
            "it does not hold the key of its certificate, or a signature is wrong".into()
        }
        CertificateError::BadEncoding => "its certificate cannot be read".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not made for this end of TLS (key usage or extended key usage)".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate uses a curve or a signature outside the profile".to_owned()
        }
        CertificateError::Other(other) => {
            if let Some(stranger) = other.0.downcast_ref::<Stranger>() {
                return stranger.to_string();
            }
            match other.0.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => {
                    "its certificate is a CA certificate; such a gateway can only be trusted by a pin"
                        .to_owned()
                }
                Some(
                    webpki::Error::MaximumPathDepthExceeded | webpki::Error::MaximumPathBuildCallsExceeded,
                ) => "its chain is too long".to_owned(),
                Some(webpki::Error::UnsupportedCertVersion) => {
                    "its certificate is X.509 version 1, which cannot be used".to_owned()
                }
                _ => format!("its certificate is refused: {other}"),
            }
        }
        other => format!("its certificate is refused: {other:?}"),
    }
}

const fn alert_name(description: AlertDescription) -> &'static str {
    match description {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::DecryptionFailed => "decryption_failed",
        AlertDescription::RecordOverflow => "record_overflow",
        AlertDescription::DecompressionFailure => "decompression_failure",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::NoCertificate => "no_certificate",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ExportRestriction => "export_restriction",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::InappropriateFallback => "inappropriate_fallback",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::NoRenegotiation => "no_renegotiation",
        AlertDescription::MissingExtension => "missing_extension",
        AlertDescription::UnsupportedExtension => "unsupported_extension",
        AlertDescription::CertificateUnobtainable => "certificate_unobtainable",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::BadCertificateStatusResponse => "bad_certificate_status_response",
        AlertDescription::BadCertificateHashValue => "bad_certificate_hash_value",
        AlertDescription::UnknownPSKIdentity => "unknown_psk_identity",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(error: Error) -> Fault {
        Fault::new(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn an_alert_of_the_peer_is_named_as_received() {
        let fault = fault(Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(fault.alert, Some(Alert { direction: Direction::Received, name: "unknown_ca" }));
        assert!(fault.to_string().starts_with("received alert unknown_ca: "), "{fault}");
    }

    #[test]
    fn an_alert_of_ours_is_named_as_sent() {
        let fault = fault(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(
            fault.to_string(),
            "its certificate is not issued by a trusted CA (sent alert unknown_ca)"
        );
    }

    #[test]
    fn what_we_do_not_have_in_common_is_said_in_words() {
        let suites = fault(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon));
        assert_eq!(suites.to_string(), "the peer offers none of our suites (sent alert handshake_failure)");
        let version = fault(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled));
        assert_eq!(
            version.to_string(),
            "the peer does not speak our TLS version (sent alert protocol_version)"
        );
        let missing = fault(Error::NoCertificatesPresented);
        assert_eq!(missing.to_string(), "the peer shows no certificate (sent alert certificate_required)");
    }

    #[test]
    fn an_end_without_alert_claims_none() {
        let fault = Fault::new(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(fault.alert, None);
        assert_eq!(fault.to_string(), "the peer closed the connection without an alert");
    }
}
