//! What is shown of the site, and how streams of it behave.

use std::time::Duration;

use ladewart_proto::v1::{
    self, evse_service_client::EvseServiceClient, meter_service_client::MeterServiceClient,
    site_service_client::SiteServiceClient, system_service_client::SystemServiceClient,
    uplink_service_client::UplinkServiceClient,
};
use prost_types::Timestamp;

use super::*;
use crate::smgw::{CertificateStatus, State};

#[tokio::test]
async fn the_picture_shows_what_the_site_knows() {
    let daemon = Daemon::start(vec![]);
    let channel = daemon.channel().await;
    let certificate = CertificateStatus {
        subject: "CN=gateway".into(),
        fingerprint: [0xab; 32],
        not_before: Wall(0),
        not_after: Wall(1_500),
    };
    daemon.uplink.send_modify(|status| {
        status.state = State::Down;
        status.last_error = Some(("proxy: 05 connection refused".into(), Wall(2_000)));
        status.peer = Some(certificate);
    });
    let site = SiteServiceClient::new(channel.clone()).get_site(v1::GetSiteRequest {}).await.unwrap();
    let site = site.into_inner().site.unwrap();
    assert_eq!(site.name, "Depot");
    let node = &site.nodes[0];
    assert_eq!((node.fuse_milliamps, node.available.unwrap().l3_milliamps), (63_000, 42_000));
    assert_eq!(node.other_load.unwrap().l1_milliamps, -1000);
    let [busy, dead] = &site.evses[..] else { panic!("two EVSEs") };
    assert_eq!(busy.status(), v1::ConnectorStatus::Charging);
    assert_eq!(busy.transaction.as_ref().unwrap().backend_id, Some(41));
    assert_eq!(busy.setpoint.as_ref().unwrap().milliamps, 16_000);
    assert_eq!(busy.draw.as_ref().unwrap().currents.unwrap().l2_milliamps, 15_800);
    assert!(!dead.connected && dead.draw.is_none() && dead.problem == "never connected");
    let [main, lost] = &site.meters[..] else { panic!("two meters") };
    assert!(main.age_milliseconds.is_some() && main.power_watts == Some(-690));
    assert_eq!((lost.quality(), lost.age_milliseconds, lost.power_watts), (v1::Quality::Lost, None, None));
    assert_eq!(site.contacts[0].state(), v1::ContactState::Unreadable);
    assert_eq!(site.contacts[0].problem, "no such line");
    assert!(site.relays[0].energised);
    let uplink = site.uplink.unwrap();
    assert_eq!((uplink.state(), uplink.backend_connections), (v1::UplinkState::Down, 1));
    assert_eq!(uplink.last_error_at, Some(Timestamp { seconds: 2, nanos: 0 }));
    let gateway = uplink.gateway_certificate.unwrap();
    assert_eq!(gateway.fingerprint, "ab".repeat(32));
    assert_eq!(gateway.not_after, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));

    let evses = EvseServiceClient::new(channel.clone()).list_evses(v1::ListEvsesRequest {}).await.unwrap();
    assert_eq!(evses.into_inner().evses, site.evses);
    let meters =
        MeterServiceClient::new(channel.clone()).list_meters(v1::ListMetersRequest {}).await.unwrap();
    assert_eq!(meters.into_inner().meters.len(), 2);
    let mut uplinks = UplinkServiceClient::new(channel.clone());
    let status = uplinks.get_uplink_status(v1::GetUplinkStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.uplink.unwrap().last_error, "proxy: 05 connection refused");
    let version = SystemServiceClient::new(channel).get_version(v1::GetVersionRequest {}).await.unwrap();
    assert_eq!(version.into_inner().api, "ladewart.v1");
    daemon.ends().await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_picture_and_holds_up_nobody() {
    let daemon = Daemon::start(vec![]);
    let mut slow = SiteServiceClient::new(daemon.channel().await);
    let request = v1::WatchSiteRequest { min_interval_ms: 10 };
    let mut watch = slow.watch_site(request).await.unwrap().into_inner();
    assert_eq!(next_site(&mut watch).await.unwrap().name, "Depot");
    // Names of 64 KiB fill the connection's window, so that the reader below is really behind.
    let mut quick = SiteServiceClient::new(daemon.channel().await);
    for n in 0..200 {
        let name = format!("{n}:{}", "x".repeat(64 << 10));
        daemon.site.view.send_modify(|view| Arc::make_mut(view).name = name);
        let site = soon(quick.get_site(v1::GetSiteRequest {})).await.unwrap().into_inner().site.unwrap();
        assert!(site.name.starts_with(&format!("{n}:")), "others are served meanwhile");
    }
    let mut pictures = 0;
    loop {
        let site = next_site(&mut watch).await.unwrap();
        pictures += 1;
        if site.name.starts_with("199:") {
            break;
        }
    }
    assert!(pictures < 200, "pictures are skipped, not queued: {pictures}");
    daemon.ends().await;
}

#[tokio::test]
async fn news_of_the_uplink_makes_one_new_picture() {
    let daemon = Daemon::start(vec![]);
    let mut client = SiteServiceClient::new(daemon.channel().await);
    let request = v1::WatchSiteRequest { min_interval_ms: 10 };
    let mut watch = client.watch_site(request).await.unwrap().into_inner();
    next_site(&mut watch).await.unwrap();
    daemon.uplink.send_modify(|status| status.state = State::Up);
    assert_eq!(next_site(&mut watch).await.unwrap().uplink.unwrap().state(), v1::UplinkState::Up);
    let more = tokio::time::timeout(Duration::from_millis(300), watch.message()).await;
    assert!(more.is_err(), "nothing changed any more: {more:?}");
    daemon.ends().await;
}
