//! Who may come in, by which proof, and with which payloads.

use super::*;

#[tokio::test]
async fn who_may_not_in_is_told_why() {
    let (dir, csms, way) = world(true).await;
    let mut site = Site::start(dir.path(), Some(&way)).await;
    assert_eq!(site.refused("ocpp/CP9", Some("ocpp1.6")).await, 404);
    assert_eq!(site.refused("", Some("ocpp1.6")).await, 404);
    assert_eq!(site.refused("CP1", Some("ocpp1.5")).await, 400);
    let (status, refusal) = tokio::join!(site.refused("CP1", Some("ocpp1.6")), csms.answer(Some(401)));
    assert_eq!(status, 401);
    assert!(refusal.is_err());
    let problem = site.event("CP1", |e| matches!(e, EvseEvent::Problem(_))).await;
    assert!(matches!(problem, EvseEvent::Problem(text) if text.contains("401")));
    // 500 is the backend's own trouble: the EVSE stays with us.
    let (evse, refusal) = tokio::join!(site.try_connect("CP%7C2", None), csms.answer(Some(500)));
    assert!(refusal.is_err());
    let mut evse = evse.unwrap();
    assert!(evse.call("h", "Heartbeat", json!({})).await["currentTime"].is_string());
}

#[tokio::test]
async fn each_leg_has_its_own_password() {
    let (dir, csms, way) = world(true).await;
    let file = dir.path().join("password");
    std::fs::write(&file, "the password of the EVSE\n").unwrap();
    let own = Secret::read(&file).unwrap();
    std::fs::write(&file, "the backend's own one").unwrap();
    let north = Secret::read(&file).unwrap();
    let site = with(dir.path(), &way, |parts| {
        let station = &mut parts.stations[0].settings.ocpp;
        station.security = config::Security::Basic;
        station.password = Some(own.clone());
        if let Some((backend, _)) = &mut parts.backend {
            backend.password = Some(north.clone());
        }
    })
    .await;
    assert_eq!(site.refused("CP1", Some("ocpp1.6")).await, 401);
    let basic = |password: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("CP1:{password}")))
    };
    assert!(
        site.try_connect_as("CP1", Some("ocpp1.6"), Some(&basic("the backend's own one"))).await.is_err()
    );
    let right = basic("the password of the EVSE");
    let (evse, (_, mut backend)) =
        tokio::join!(site.try_connect_as("CP1", Some("ocpp1.6"), Some(&right)), csms.accept());
    let mut evse = evse.unwrap();
    assert_eq!(backend.2.as_deref(), Some(basic("the backend's own one").as_str()));
    // The backend changes it: the EVSE hears nothing, the next connection has the new one.
    let change = json!({ "key": "AuthorizationKey", "value": "a fresh password" });
    backend.say(json!([2, "c", "ChangeConfiguration", change])).await;
    assert_eq!(backend.hear().await, json!([3, "c", { "status": "Accepted" }]));
    let (_, mut backend) = csms.accept().await;
    assert_eq!(backend.2.as_deref(), Some(basic("a fresh password").as_str()));
    evse.say(json!([2, "h", "Heartbeat", {}])).await;
    assert_eq!(backend.hear_call("Heartbeat").await.0, "h");
}

#[tokio::test]
async fn tls_and_certificates_on_the_same_port() {
    let (dir, csms, way) = world(true).await;
    let ca = rcgen::CertifiedIssuer::self_signed(authority(), rcgen::KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.signed_by(&key, &ca).unwrap(), key)
    };
    let (certificate, key) = leaf("localhost");
    let own = crate::identity::Identity::load(
        &write("own.pem", certificate.pem()),
        &write("own.key", key.serialize_pem()),
        crate::tls::Profile::Inner,
    )
    .unwrap();
    let roots = crate::tls::anchors(&write("ca.pem", ca.pem())).unwrap();
    let tls = crate::tls::evse_server(&own, Some(roots.clone()), Clock::system()).unwrap();
    let site = with(dir.path(), &way, |parts| {
        parts.tls = Some(Arc::clone(&tls));
        parts.stations[0].settings.ocpp.security = config::Security::MutualTls;
    })
    .await;
    assert_eq!(site.refused("CP1", Some("ocpp1.6")).await, 401, "without TLS");
    for (name, may) in [(None, false), (Some("CP2"), false), (Some("CP1"), true)] {
        let shown = name.map(|name| {
            let (certificate, key) = leaf(name);
            (
                certificate.der().clone(),
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
        });
        let provider = Arc::new(crate::tls::provider(crate::tls::Profile::Inner));
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let client = match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        };
        let io = TcpStream::connect(site.address).await.unwrap();
        let server = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let io = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(server, io).await.unwrap();
        let mut request = "ws://localhost/CP1".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse().unwrap());
        if may {
            let (opened, (path, _)) = tokio::join!(client_async(request, io), csms.accept());
            assert!(opened.is_ok());
            assert_eq!(path, "/ocpp/CP1");
        } else {
            let refusal = Box::pin(soon("the refusal", client_async(request, io))).await.unwrap_err();
            assert!(matches!(refusal, WsError::Http(r) if r.status() == 401), "{name:?}");
        }
    }
}

fn authority() -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
}

#[tokio::test]
async fn bad_payloads_are_refused_where_the_schemas_are_asked() {
    let (dir, csms, way) = world(true).await;
    let place = dir.path().join("schemas/1.6");
    std::fs::create_dir_all(&place).unwrap();
    let schema = r#"{"type":"object","properties":{"idTag":{"type":"string","maxLength":20}},"required":["idTag"],
        "additionalProperties":false}"#;
    std::fs::write(place.join("Authorize.json"), schema).unwrap();
    let schemas = Schemas::load(&dir.path().join("schemas")).unwrap();
    for refuses in [true, false] {
        let data = dir.path().join(format!("data-{refuses}"));
        let site = with(&data, &way, |parts| {
            parts.schemas = Some(Arc::clone(&schemas));
            parts.config.check = if refuses { config::Check::Refuse } else { config::Check::Warn };
        })
        .await;
        let (mut evse, mut backend) = through(&site, &csms, "CP1").await;
        evse.say(json!([2, "a", "Authorize", { "idTag": 5 }])).await;
        if refuses {
            assert_eq!(
                evse.hear().await,
                json!([4, "a", "TypeConstraintViolation", "Authorize: idTag has the wrong type", {}])
            );
            backend.say(json!([2, "r", "Reset", {}])).await;
            assert_eq!(backend.hear().await[2], "NotImplemented", "no schema of this version names it");
        } else {
            assert_eq!(backend.hear_call("Authorize").await.1, json!({ "idTag": 5 }));
        }
        site.end().await;
    }
}
