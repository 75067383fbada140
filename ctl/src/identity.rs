//! `ladewartctl identity`.

mod brought;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ladewart_proto::v1::{self, KeyAlgorithm, identity_service_client::IdentityServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// The identities, and which one is shown to the gateway.
    List,
    /// Makes a key on the device; it never leaves it.
    CreateKey {
        /// A name for it: a-z, 0-9 and -.
        name: String,
        /// The curve.
        #[arg(long, value_enum, default_value_t = Curve::P256)]
        curve: Curve,
    },
    /// Writes a certificate request (PKCS#10, PEM) for a CA.
    Request(Request),
    /// Takes a certificate for a key of the device, the first one or a newer one.
    Import {
        /// Whose key it is for.
        name: String,
        /// PEM file, the leaf first, then its issuers.
        certificate: PathBuf,
    },
    /// Takes a private key that was made elsewhere, with its certificates, from PKCS#12 or PEM. A key that is made on
    /// the device (create-key) is better: it has never been anywhere else.
    ImportKey(brought::ImportKey),
    /// Shows this one to the gateway from now on; connections that stand keep theirs.
    Select {
        /// Its name.
        name: String,
    },
    /// Removes key and certificate; not the one that is shown.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Whose key it is for.
    name: String,
    /// Common name; the identity's name without.
    #[arg(long, default_value = "", hide_default_value = true)]
    common_name: String,
    /// Organisation.
    #[arg(long, default_value = "", hide_default_value = true)]
    organization: String,
    /// Country, two letters.
    #[arg(long, default_value = "", hide_default_value = true)]
    country: String,
    /// A DNS name; may be given several times.
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// brainpoolP256r1.
    BrainpoolP256r1,
    /// brainpoolP384r1.
    BrainpoolP384r1,
    /// brainpoolP512r1.
    BrainpoolP512r1,
}

/// Longest file that is sent.
const LONGEST: u64 = 256 << 10;

/// A file's text.
fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |problem: &dyn std::fmt::Display| Failure::Usage(format!("{}: {problem}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| wrong(&e))?.len();
    if length > LONGEST {
        return Err(wrong(&"is longer than 256 KiB; give a PEM file"));
    }
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => {
            wrong(&"is no text; give PEM (a PKCS#12 file with its key is taken by: identity import-key)")
        }
        _ => wrong(&e),
    })
}

impl Identity {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = IdentityServiceClient::new(session.channel().await?);
        match self {
            Self::List => {
                let answer = session.call(client.list_identities(v1::ListIdentitiesRequest {})).await?;
                session.show("ListIdentitiesResponse", &answer, |style| list(style, &answer.identities)).await
            }
            Self::CreateKey { name, curve } => {
                let algorithm = match curve {
                    Curve::P256 => KeyAlgorithm::EcdsaP256,
                    Curve::P384 => KeyAlgorithm::EcdsaP384,
                    Curve::BrainpoolP256r1 => KeyAlgorithm::EcdsaBrainpoolP256r1,
                    Curve::BrainpoolP384r1 => KeyAlgorithm::EcdsaBrainpoolP384r1,
                    Curve::BrainpoolP512r1 => KeyAlgorithm::EcdsaBrainpoolP512r1,
                };
                let request = v1::CreateKeyRequest { name: name.clone(), algorithm: algorithm.into() };
                let answer = session.call(client.create_key(request)).await?;
                let sentence =
                    format!("The key \"{name}\" is made; ask for its certificate with `identity request`.");
                session.show("CreateKeyResponse", &answer, |_| sentence).await
            }
            Self::Request(Request { name, common_name, organization, country, dns_names }) => {
                let request = v1::CreateCertificateRequestRequest {
                    name,
                    common_name,
                    organization,
                    country,
                    dns_names,
                };
                let answer = session.call(client.create_certificate_request(request)).await?;
                session.show("CreateCertificateRequestResponse", &answer, |_| answer.request.clone()).await
            }
            Self::Import { name, certificate } => {
                let request = v1::ImportCertificateRequest { name, certificate: read(&certificate)? };
                let answer = session.call(client.import_certificate(request)).await?;
                session
                    .show("ImportCertificateResponse", &answer, |style| {
                        list(style, answer.identity.as_slice())
                    })
                    .await
            }
            Self::ImportKey(brought) => {
                let request = brought.request()?;
                let answer = session.call(client.import_identity(request)).await?;
                session
                    .show("ImportIdentityResponse", &answer, |style| list(style, answer.identity.as_slice()))
                    .await
            }
            Self::Select { name } => {
                let request = v1::SelectIdentityRequest { name: name.clone() };
                let answer = session.call(client.select_identity(request)).await?;
                let sentence = if answer.changed {
                    format!("\"{name}\" is shown to the gateway by each connection from now on.")
                } else {
                    format!("\"{name}\" was shown to the gateway already.")
                };
                session.show("SelectIdentityResponse", &answer, |_| sentence).await
            }
            Self::Delete { name } => {
                let request = v1::DeleteIdentityRequest { name: name.clone() };
                let answer = session.call(client.delete_identity(request)).await?;
                session.show("DeleteIdentityResponse", &answer, |_| format!("\"{name}\" is gone.")).await
            }
        }
    }
}

fn list(style: &Style, identities: &[v1::Identity]) -> String {
    if identities.is_empty() {
        return "There is no identity yet; make one with `ladewartctl identity create-key NAME`.".to_owned();
    }
    let row = |identity: &v1::Identity| {
        let certificate = identity.certificate.as_ref();
        let holds = match certificate {
            None => NOTHING.to_owned(),
            Some(certificate) => match style.until(certificate.not_after.as_ref()) {
                Some(left) => format!("for {left}"),
                None => "EXPIRED".to_owned(),
            },
        };
        vec![
            words::text(&identity.name),
            if identity.selected { "shown" } else { NOTHING }.to_owned(),
            certificate.map_or_else(|| NOTHING.to_owned(), |c| words::text(&c.subject)),
            holds,
            certificate.map_or_else(|| NOTHING.to_owned(), |c| words::text(&c.fingerprint)),
            words::text(&identity.problem),
        ]
    };
    let headings = ["NAME", "GATEWAY", "SUBJECT", "HOLDS", "SHA-256", "PROBLEM"];
    table(style, &headings, identities.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_with_and_without_a_certificate() {
        let identities = [
            v1::Identity {
                name: "cls-2026".into(),
                certificate: Some(v1::Certificate {
                    subject: "CN=site-1".into(),
                    fingerprint: "ab".repeat(32),
                    not_before: Style::ago(86_400),
                    not_after: Style::ago(-86_400 * 90),
                }),
                chain_length: 2,
                selected: true,
                problem: String::new(),
            },
            v1::Identity {
                name: "cls-2028".into(),
                problem: "identity \"cls-2028\" has no certificate yet".into(),
                ..Default::default()
            },
        ];
        insta::assert_snapshot!(list(&Style::fixed(), &identities));
    }

    #[test]
    fn what_is_no_text_is_told_with_the_way_out() {
        let file = std::env::temp_dir().join(format!("ladewartctl-identity-{}.p12", std::process::id()));
        std::fs::write(&file, [0x30, 0x82, 0xff, 0xfe]).unwrap();
        let error = read(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("identity import-key"), "{error}");
    }
}
