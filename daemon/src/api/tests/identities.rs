//! Keys and certificates.

use ladewart_proto::v1::{
    identity_service_client::IdentityServiceClient, journal_service_client::JournalServiceClient,
    uplink_service_client::UplinkServiceClient,
};
use tonic::Code;

use super::*;

#[tokio::test]
async fn a_key_is_made_here_and_never_shown() {
    let daemon = Daemon::start(vec![]);
    let channel = daemon.channel().await;
    let mut identities = IdentityServiceClient::new(channel.clone());
    let named = |name: &str| v1::CreateKeyRequest { name: name.into(), ..Default::default() };
    let made = identities.create_key(named("cls")).await.unwrap().into_inner().identity.unwrap();
    assert!(made.certificate.is_none() && made.problem.contains("has no certificate yet"), "{made:?}");
    assert_eq!(identities.create_key(named("cls")).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(identities.create_key(named("../x")).await.unwrap_err().code(), Code::InvalidArgument);
    let asked = v1::CreateCertificateRequestRequest { name: "cls".into(), ..Default::default() };
    let asked = identities.create_certificate_request(asked).await.unwrap().into_inner().request;
    assert!(asked.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{asked}");

    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["cls".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    let import = v1::ImportCertificateRequest { name: "cls".into(), certificate: certificate.clone() };
    let refused = identities.import_certificate(import).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("does not belong to the certificate"), "{}", refused.message());
    let import =
        v1::ImportIdentityRequest { name: "old".into(), certificate, private_key: key.serialize_pem() };
    identities.import_identity(import).await.unwrap();
    let select = |name: &str| v1::SelectIdentityRequest { name: name.into() };
    let refused = identities.select_identity(select("cls")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(identities.select_identity(select("gone")).await.unwrap_err().code(), Code::NotFound);
    assert!(identities.select_identity(select("old")).await.unwrap().into_inner().changed);
    assert!(!identities.select_identity(select("old")).await.unwrap().into_inner().changed);
    let delete = v1::DeleteIdentityRequest { name: "cls".into() };
    identities.delete_identity(delete).await.unwrap();
    let listed = identities.list_identities(v1::ListIdentitiesRequest {}).await.unwrap().into_inner();
    let [old] = &listed.identities[..] else { panic!("{listed:?}") };
    assert!(old.selected && old.name == "old" && old.problem.is_empty());

    let mut journal = JournalServiceClient::new(channel.clone());
    let request = v1::ExportJournalRequest { kind: "identity.".into(), ..Default::default() };
    let mut entries = journal.export_journal(request).await.unwrap().into_inner();
    let secret = key.serialize_pem().lines().nth(1).unwrap().to_owned();
    let mut told = Vec::new();
    while let Some(entry) = entries.message().await.unwrap() {
        let entry = entry.entry.unwrap();
        assert!(!format!("{entry:?}").contains(&secret), "no key in the evidence");
        told.push(format!("{} {} {}", entry.kind, entry.subject, entry.actor));
    }
    let by = format!("uid:{}", own_uid());
    let expected = ["key_created cls", "imported old", "selected old", "deleted cls"];
    assert_eq!(told, expected.map(|what| format!("identity.{what} {by}")));

    let mut uplink = UplinkServiceClient::new(channel);
    let refused = uplink.test_uplink(v1::TestUplinkRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "this site has no uplink"));
    daemon.ends().await;
}
