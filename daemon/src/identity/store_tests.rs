use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    date_time_ymd,
};
use rustls::client::ResolvesClientCert;

use super::*;

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).unwrap()
}

/// What the CA answers to a request, in PEM: leaf and issuer.
fn issue(ca: &CertifiedIssuer<'static, KeyPair>, request: &str, until: i32) -> String {
    let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
    request.params.not_before = date_time_ymd(2020, 1, 1);
    request.params.not_after = date_time_ymd(until, 1, 1);
    request.signed_by(ca).unwrap().pem() + &ca.pem()
}

struct Place {
    directory: tempfile::TempDir,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        let clock = Clock::set_to(Wall::parse("2027-06-01T00:00:00Z").unwrap());
        Self { directory: tempfile::tempdir().unwrap(), clock }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("identity")
    }

    fn open(&self) -> Store {
        Store::open(&self.path(), self.clock).unwrap()
    }
}

#[tokio::test]
async fn from_a_key_made_here_to_a_certificate_that_is_shown() {
    let place = Place::new();
    let store = place.open();
    store.default_to("cls");
    let problem = store.selected().borrow().clone().unwrap_err();
    assert!(problem.contains("no key yet; make one with `ladewartctl identity create-key cls`"), "{problem}");
    for (name, algorithm) in [("cls", Algorithm::EcdsaP256), ("other", Algorithm::EcdsaP384)] {
        let entry = store.create_key(name, algorithm).unwrap();
        assert!(entry.problem.contains("has no certificate yet"), "{}", entry.problem);
        let mode = fs::metadata(place.path().join(format!("{name}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(place.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let subject = Subject {
            common_name: "Depot 3".into(),
            organization: "Stadtwerke".into(),
            country: "DE".into(),
            dns_names: vec!["cls.example".into()],
        };
        let request = store.request(name, &subject).unwrap();
        let entry = store.import_certificate(name, &issue(&ca("CA"), &request, 2030)).unwrap();
        assert_eq!((entry.problem.as_str(), entry.chain), ("", 2));
        let shown = entry.certificate.unwrap().subject;
        assert!(shown.contains("CN=Depot 3") && shown.contains("O=Stadtwerke"), "{shown}");
    }
    assert_eq!(store.selected().borrow().as_ref().unwrap().certified_key().cert.len(), 2);

    assert!(
        store.select("other").unwrap() && !store.select("other").unwrap(),
        "the second time changes nothing"
    );
    let again = place.open();
    again.default_to("cls");
    let listed = again.list().unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.selected)).collect();
    assert_eq!(listed, [("cls", false), ("other", true)], "a selection outlives the daemon");
    assert!(matches!(again.delete("other"), Err(StoreError::NotNow(_))), "what is shown stays");
    again.delete("cls").unwrap();
    assert!(matches!(again.delete("cls"), Err(StoreError::Unknown(_))));
    assert!(!place.path().join("cls.key").exists());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_by_the_next_session() {
    let place = Place::new();
    let (store, ca) = (place.open(), ca("CA"));
    store.default_to("cls");
    store.create_key("cls", Algorithm::EcdsaP256).unwrap();
    let request = store.request("cls", &Subject::default()).unwrap();
    store.import_certificate("cls", &issue(&ca, &request, 2028)).unwrap();
    let (shown, mut selected) = (store.shown(), store.selected());
    let before = shown.resolve(&[], &[]).unwrap();
    selected.borrow_and_update();
    store.import_certificate("cls", &issue(&ca, &request, 2031)).unwrap();
    assert!(selected.has_changed().unwrap());
    let after = shown.resolve(&[], &[]).unwrap();
    assert_ne!(before.cert[0], after.cert[0]);
    assert_eq!(after.end_entity_cert().unwrap(), &after.cert[0]);
}

#[test]
fn each_wrong_import_is_told_and_changes_nothing() {
    let place = Place::new();
    let (store, ca, other_ca) = (place.open(), ca("CA"), ca("Other CA"));
    store.create_key("cls", Algorithm::EcdsaP256).unwrap();
    store.create_key("spare", Algorithm::EcdsaP256).unwrap();
    let request = |name| store.request(name, &Subject::default()).unwrap();
    let good = issue(&ca, &request("cls"), 2030);
    let leaf = good.split_inclusive("-----END CERTIFICATE-----").next().unwrap().to_owned();
    let usage = |change: &dyn Fn(&mut CertificateParams)| {
        let mut request = CertificateSigningRequestParams::from_pem(&request("cls")).unwrap();
        request.params.not_after = date_time_ymd(2030, 1, 1);
        change(&mut request.params);
        request.signed_by(&ca).unwrap().pem()
    };
    let cases = [
        (issue(&ca, &request("spare"), 2030), "key: the key of cls: the private key does not belong"),
        (issue(&ca, &request("cls"), 2021), "certificate: ended on 2021-01-01"),
        (format!("{leaf}\n{}", other_ca.pem()), "certificate: the certificates do not form a chain"),
        (usage(&|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), "lacks digitalSignature"),
        (
            usage(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "its extended key usage is not for TLS",
        ),
        (request("cls"), "holds a certificate request; give the certificate that the CA issued"),
        (String::new(), "holds no certificate"),
        ("x".repeat(LONGEST + 1), "is longer than 256 KiB"),
    ];
    for (chain, says) in cases {
        let error = store.import_certificate("cls", &chain).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "expected {says:?} in {error}");
        assert!(!place.path().join("cls.pem").exists());
    }
    store.import_certificate("cls", &leaf).unwrap();
    assert!(matches!(store.import_certificate("gone", &good), Err(StoreError::Unknown(_))));
}

#[test]
fn a_key_made_elsewhere_can_be_brought_along() {
    let place = Place::new();
    let store = place.open();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(vec!["cls".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2030, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    let entry = store.import("old", &certificate, &key.serialize_pem()).unwrap();
    assert_eq!((entry.problem.as_str(), entry.selected), ("", false));
    assert!(matches!(store.import("old", &certificate, &key.serialize_pem()), Err(StoreError::Exists(_))));
    let secret: String = key.serialize_pem().lines().filter(|l| !l.starts_with('-')).collect();
    let error = store.import("new", &key.serialize_pem(), &certificate).unwrap_err().to_string();
    assert!(!error.contains(&secret[..16]), "{error}");
    store.select("old").unwrap();
    assert!(!format!("{store:?}").contains(&secret[..16]));
}

#[test]
fn names_are_file_names_and_their_number_is_bounded() {
    let store = Place::new().open();
    for name in ["", "..", "a/b", "A", "-a", "a b", "ä", &"a".repeat(33)] {
        let error = store.create_key(name, Algorithm::EcdsaP256).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { field: "name", .. }), "{name:?}");
        assert!(matches!(store.select(name), Err(StoreError::Unknown(_))), "{name:?}");
    }
    for i in 0..MOST {
        store.create_key(&format!("k{i}"), Algorithm::EcdsaP256).unwrap();
    }
    assert!(matches!(store.create_key("more", Algorithm::EcdsaP256), Err(StoreError::NotNow(_))));
}
