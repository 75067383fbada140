//! The simulators against each other and against plain clients, without the daemon: what they claim to be, they are.

#![expect(clippy::float_cmp, reason = "the values are set, not computed")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use fast_socks5::{
    Socks5Command,
    client::{Config, Socks5Stream},
    util::target_addr::TargetAddr,
};
use ladewart_lab::{
    backend::{self, Backend, FIRST_TRANSACTION},
    clock::eventually,
    evse::{self, Evse, Settings, car::Car},
    frame::Frame,
    gateway::{Event, Faults, Gateway, Profile, Refusal, Route},
    meter::{Fault, Meter},
    pki::{Authority, Identity},
};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_modbus::{client::Reader as _, prelude::tcp};
use tokio_rustls::client::TlsStream;

const SOON: Duration = Duration::from_secs(10);

fn charge_point(server: &str) -> Settings {
    Settings { pace: 10.0, meter_interval: Duration::from_millis(200), ..Settings::new("CP-1", server) }
}

const CAR: Car = Car { phases: 3, max_amps: 16.0, room_wh: 40_000.0 };

#[tokio::test]
async fn a_charge_is_billed_with_the_registers_of_the_charge_point() -> anyhow::Result<()> {
    let backend = Backend::start(Vec::new()).await?;
    let evse = Evse::start(charge_point(&backend.address().to_string()));
    evse.plug(CAR);
    eventually(SOON, "the charge point boots", || evse.state().booted.then_some(())).await?;
    evse.present("TAG-1");
    eventually(SOON, "the car charges", || (evse.state().watts > 11_000.0).then_some(())).await?;
    eventually(SOON, "meter values arrive", || {
        (backend.transactions().first()?.meter_values > 2).then_some(())
    })
    .await?;
    evse.present("TAG-1");
    let bill = eventually(SOON, "the transaction is closed", || {
        backend.transactions().into_iter().find(|t| !t.meter_stops.is_empty())
    })
    .await?;
    let session = &evse.state().sessions[0];
    assert_eq!((bill.id, bill.starts), (FIRST_TRANSACTION, 1));
    assert_eq!(session.id, Some(bill.id));
    assert_eq!((session.meter_start, session.meter_stop), (bill.meter_start, Some(bill.meter_stops[0])));
    assert!(bill.meter_stops[0] > bill.meter_start, "energy flowed");
    assert_eq!(evse.state().currents, [0.0; 3]);
    Ok(())
}

#[tokio::test]
async fn an_unanswered_start_is_repeated_with_its_id_and_billed_once() -> anyhow::Result<()> {
    let backend = Backend::start(Vec::new()).await?;
    let settings =
        Settings { call_timeout: Duration::from_millis(300), ..charge_point(&backend.address().to_string()) };
    let evse = Evse::start(settings);
    evse.plug(CAR);
    eventually(SOON, "the charge point boots", || evse.state().booted.then_some(())).await?;
    backend.faults(backend::Faults { silent: true, ..Default::default() });
    backend.faults(backend::Faults { errors: 2, only: Some("StartTransaction"), ..Default::default() });
    evse.present("TAG-1");
    eventually(SOON, "the start goes through", || evse.state().transaction.flatten()).await?;
    backend.faults(backend::Faults { silent: true, ..Default::default() });
    evse.present("TAG-1");
    let unanswered = |e: &ladewart_lab::log::Entry<evse::Event>| {
        matches!(e.what, evse::Event::Unanswered(_)).then_some(())
    };
    assert!(evse.log().wait(SOON, unanswered).await.is_some());
    backend.faults(backend::Faults::default());
    eventually(SOON, "everything is answered", || (evse.state().waiting == 0).then_some(())).await?;
    let ids: Vec<String> = evse
        .log()
        .entries()
        .into_iter()
        .filter_map(|e| match e.what {
            evse::Event::Sent(Frame::Call { id, action, .. }) if action == "StartTransaction" => Some(id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 3, "two errors, then success");
    assert!(ids.iter().all(|id| *id == ids[0]), "one message, one id: {ids:?}");
    assert_eq!(backend.transactions().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_car_obeys_the_profile_and_its_lease() -> anyhow::Result<()> {
    let backend = Backend::start(Vec::new()).await?;
    let evse = Evse::start(charge_point(&backend.address().to_string()));
    evse.plug(CAR);
    eventually(SOON, "the charge point boots", || evse.state().booted.then_some(())).await?;
    evse.present("TAG-1");
    eventually(SOON, "the car charges", || (evse.state().currents[0] > 15.9).then_some(())).await?;
    let profile = json!({ "connectorId": 0, "csChargingProfiles": {
        "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "ChargePointMaxProfile",
        "chargingProfileKind": "Absolute", "chargingSchedule": { "chargingRateUnit": "A",
            "startSchedule": ladewart_lab::clock::wall().to_string(),
            "chargingSchedulePeriod": [{ "startPeriod": 0, "limit": 10.0 }, { "startPeriod": 2, "limit": 0.0 }] } } });
    assert_eq!(backend.call("CP-1", "SetChargingProfile", profile).await?, json!({ "status": "Accepted" }));
    eventually(SOON, "the car is at 10 A", || (evse.state().currents == [10.0; 3]).then_some(())).await?;
    eventually(SOON, "the lease ends", || (evse.state().status == "SuspendedEVSE").then_some(())).await?;
    assert_eq!(evse.state().currents, [0.0; 3]);
    let stop = backend.call("CP-1", "RemoteStopTransaction", json!({ "transactionId": 1 })).await?;
    assert_eq!(stop, json!({ "status": "Rejected" }), "not its transaction");
    Ok(())
}

struct Legs {
    gateway: Gateway,
    han: Authority,
    cls: Identity,
    backend: Backend,
}

async fn legs() -> anyhow::Result<Legs> {
    let (han, wan) = (Authority::new("HAN")?, Authority::new("WAN")?);
    let backend = Backend::start(vec![wan.acceptor(&wan.issue("emt.example")?)?]).await?;
    let route = Route { address: backend.address(), tls_name: Some("emt.example".into()) };
    let gateway = Gateway::start(Profile {
        han: han.acceptor(&han.issue("smgw.local")?)?,
        wan: wan.connector(&wan.issue("gateway.wan")?)?,
        routes: HashMap::from([("emt.example:9000".to_owned(), route)]),
    })
    .await?;
    Ok(Legs { gateway, cls: han.issue("cls.lab")?, han, backend })
}

impl Legs {
    async fn connect(
        &self,
        own: &Identity,
        host: &str,
    ) -> anyhow::Result<Socks5Stream<TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.gateway.address()).await?;
        let name = ServerName::try_from("smgw.local")?;
        let tls = self.han.connector(own)?.connect(name, tcp).await?;
        let mut socks = Socks5Stream::use_stream(tls, None, Config::default()).await?;
        socks.request(Socks5Command::TCPConnect, TargetAddr::Domain(host.to_owned(), 9000)).await?;
        Ok(socks)
    }
}

#[tokio::test]
async fn the_gateway_lets_the_known_client_through_to_allowed_targets_only() -> anyhow::Result<()> {
    let legs = legs().await?;
    let stream = legs.connect(&legs.cls, "emt.example").await?;
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(
        "ws://emt.example/ocpp/CP-9",
    )?;
    request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse()?);
    let (_socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    eventually(SOON, "the backend sees CP-9", || legs.backend.connected("CP-9").then_some(())).await?;

    let Err(refused) = legs.connect(&legs.cls, "elsewhere.example").await else {
        panic!("a target outside the profile was reached");
    };
    assert!(format!("{refused:#}").to_lowercase().contains("not allowed"), "{refused:#}");
    let stranger = Authority::new("other")?.issue("cls.lab")?;
    assert!(legs.connect(&stranger, "emt.example").await.is_err(), "a stranger is refused");

    legs.gateway.cut();
    eventually(SOON, "the cut reaches the backend", || (!legs.backend.connected("CP-9")).then_some(()))
        .await?;
    assert!(legs.connect(&legs.cls, "emt.example").await.is_err());
    legs.gateway.restore();
    legs.connect(&legs.cls, "emt.example").await?;
    legs.gateway.faults(Faults { reply: Some(Refusal::Refused), ..Faults::default() });
    assert!(legs.connect(&legs.cls, "emt.example").await.is_err());
    assert_eq!(legs.gateway.log().count(|e| *e == Event::Cut), 1);
    Ok(())
}

#[tokio::test]
async fn the_meter_answers_like_an_sdm630_until_it_is_told_otherwise() -> anyhow::Result<()> {
    let meter = Meter::start(Arc::new(|| [10.0, -2.0, 0.5])).await?;
    let mut client = tcp::connect(meter.address()).await?;
    let words = client.read_input_registers(0, 76).await??;
    let value =
        |register: usize| f32::from_bits((u32::from(words[register]) << 16) | u32::from(words[register + 1]));
    assert_eq!((value(0), value(6), value(8)), (230.0, 10.0, 2.0));
    assert_eq!((value(0x0c), value(0x0e)), (2300.0, -460.0));
    assert_eq!(value(0x34), 1955.0);
    meter.fault(Fault::Exception);
    assert!(client.read_input_registers(0, 76).await?.is_err());
    meter.fault(Fault::Silent);
    let silence = tokio::time::timeout(Duration::from_millis(200), client.read_input_registers(0, 76)).await;
    assert!(silence.is_err());
    Ok(())
}
