//! The uplink fails in every way that gateways and backends fail: the site goes on, nothing is lost, nothing told
//! twice, and the status says why.

use std::{collections::HashMap, time::Duration};

use ladewart_lab::{
    backend,
    clock::eventually,
    connection::{L123, L231},
    frame::Frame,
    gateway::{Faults, Refusal},
    pki::Authority,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
};
use ladewart_proto::v1::UplinkState;

fn two() -> Plan {
    Plan {
        evses: vec![EvsePlan::new("carport", L123, 32), EvsePlan::new("yard", L231, 32)],
        meter_interval: Duration::from_millis(300),
        ..Plan::default()
    }
}

/// Each message that belongs to a transaction arrived under one id, and again under that id at most once for each
/// cut and EVSE: only a message whose answer was cut off may come again, and there is one outstanding CALL.
fn assert_no_message_twice(lab: &Lab, cuts: usize) {
    let mut ids = HashMap::new();
    let mut again = 0;
    for entry in lab.backend.log().entries() {
        let (identity, event) = entry.what;
        if let backend::Event::Received(Frame::Call { id, action, payload }) = event
            && matches!(action.as_str(), "StartTransaction" | "StopTransaction" | "MeterValues")
        {
            let first = ids.insert((identity, action.clone(), payload.to_string()), id.clone());
            assert!(
                first.as_ref().is_none_or(|f| *f == id),
                "{action} arrived under two ids: {first:?}, {id}: {payload}"
            );
            again += usize::from(first.is_some());
        }
    }
    let bound = cuts * lab.evses.len();
    assert!(
        again <= bound,
        "{again} messages arrived again, {bound} can have lost their answer in {cuts} cuts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_loses_no_transaction_and_tells_none_twice() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    let carport = lab.charge("carport", CAR, "ADA").await?;
    lab.gateway.cut();
    eventually(SOON, "the backend loses both", || {
        (!lab.backend.connected("carport") && !lab.backend.connected("yard")).then_some(())
    })
    .await?;
    // A charge that began before ends, one begins and goes on, one begins and ends: all while the uplink is down.
    lab.charge("yard", CAR, "BEN").await?;
    carport.unplug();
    eventually(SOON, "ADA's charge ends", || carport.state().transaction.is_none().then_some(())).await?;
    lab.charge("carport", CAR, "CEM").await?;
    carport.unplug();
    eventually(SOON, "everything is answered on the site", || (carport.state().waiting == 0).then_some(()))
        .await?;
    lab.charge("carport", CAR, "DEA").await?;
    assert!(carport.state().connected, "the EVSEs noticed nothing");
    let down = lab.operator.uplink().await?;
    assert_eq!(down.state(), UplinkState::Down, "{down:?}");
    lab.shows("waiting messages", |s| s.evses.iter().all(|e| e.queued_messages > 0).then_some(())).await?;
    let billed_before = lab.backend.transactions().len();
    assert_eq!(billed_before, 1);

    lab.gateway.restore();
    lab.ready().await?;
    let lines = lab.settle().await?;
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_no_message_twice(&lab, 1);
    for transaction in lab.backend.transactions() {
        assert!(transaction.id >= backend::FIRST_TRANSACTION);
    }
    // Within one identity the backend sees start before values before stop, transaction after transaction.
    let order: Vec<String> = lab
        .backend
        .log()
        .entries()
        .into_iter()
        .filter_map(|e| match e.what {
            (who, backend::Event::Received(Frame::Call { action, payload, .. })) if who == "carport" => {
                match action.as_str() {
                    "StartTransaction" => Some(format!("start {}", payload["idTag"].as_str()?)),
                    "StopTransaction" => Some("stop".to_owned()),
                    _ => None,
                }
            }
            _ => None,
        })
        .collect();
    assert_eq!(order, ["start ADA", "stop", "start CEM", "stop", "start DEA", "stop"]);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flaps_in_the_middle_of_everything_lose_nothing() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    for round in 0..3 {
        lab.charge("carport", CAR, &format!("ADA-{round}")).await?;
        lab.gateway.cut();
        lab.charge("yard", CAR, &format!("BEN-{round}")).await?;
        lab.gateway.restore();
        lab.evses[0].unplug();
        eventually(SOON, "ADA's charge ends", || {
            (lab.evses[0].state().transaction.is_none() && lab.evses[0].state().waiting == 0).then_some(())
        })
        .await?;
        lab.ready().await?;
        lab.evses[1].unplug();
        eventually(SOON, "BEN's charge ends", || {
            (lab.evses[1].state().transaction.is_none() && lab.evses[1].state().waiting == 0).then_some(())
        })
        .await?;
    }
    assert_eq!(lab.settle().await?.len(), 6);
    assert_no_message_twice(&lab, 3);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_with_errors_or_closes_gets_everything_in_the_end() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    lab.backend.faults(backend::Faults {
        errors: 2,
        only: Some("StartTransaction"),
        ..backend::Faults::default()
    });
    lab.charge("carport", CAR, "ADA").await?;
    eventually(SOON, "the third attempt is accepted", || {
        (lab.backend.transactions().len() == 1).then_some(())
    })
    .await?;
    lab.backend.faults(backend::Faults { close_after: Some(2), ..backend::Faults::default() });
    lab.charge("yard", CAR, "BEN").await?;
    eventually(SOON, "BEN is billed", || (lab.backend.transactions().len() == 2).then_some(())).await?;
    // Silence: the EVSEs are answered, the backend gets it later.
    lab.backend.faults(backend::Faults { silent: true, ..backend::Faults::default() });
    lab.evses[0].unplug();
    eventually(SOON, "ADA's end is answered on the site", || {
        (lab.evses[0].state().transaction.is_none() && lab.evses[0].state().waiting == 0).then_some(())
    })
    .await?;
    lab.backend.faults(backend::Faults::default());
    for evse in &lab.evses {
        evse.unplug();
    }
    eventually(Duration::from_secs(40), "both ends are billed", || {
        lab.backend.transactions().iter().all(|t| !t.meter_stops.is_empty()).then_some(())
    })
    .await?;
    assert_eq!(lab.backend.transactions().len(), 2);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_gateway_is_shown_and_the_site_goes_on() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Plan::default()).await?;
    lab.gateway.faults(Faults { reply: Some(Refusal::NotAllowed), ..Faults::default() });
    lab.start_daemon().await?;
    let uplink = lab
        .shows("the refusal", |s| s.uplink.clone().filter(|u| u.last_proxy_reply.starts_with("02")))
        .await?;
    assert_eq!(uplink.state(), UplinkState::Down);
    assert!(!uplink.last_error.is_empty());
    lab.gateway.faults(Faults { close_after_success: true, ..Faults::default() });
    lab.shows("success that was none", |s| {
        s.uplink
            .as_ref()
            .filter(|u| u.failures > uplink.failures && u.state() == UplinkState::Down)
            .map(|_| ())
    })
    .await?;
    lab.gateway.faults(Faults::default());
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_another_certificate_is_refused_and_shown() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Plan::default()).await?;
    let other = Authority::new("other")?.issue("smgw.local")?;
    let wrong = lab.configuration().replace(&lab.keys.gateway.fingerprint(), &other.fingerprint());
    lab.write("ladewartd.toml", &wrong)?;
    lab.start_daemon().await?;
    let uplink =
        lab.shows("the wrong certificate", |s| s.uplink.clone().filter(|u| !u.last_error.is_empty())).await?;
    assert!(uplink.last_error.contains(&lab.keys.gateway.fingerprint()[..8]), "names what came: {uplink:?}");
    assert_eq!(uplink.state(), UplinkState::Down);
    assert_eq!(lab.gateway.open(), 0, "nothing passes to a stranger");
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_know_us_is_shown_with_its_alert() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Plan::default()).await?;
    let stranger = Authority::new("other")?.issue("cls.lab")?;
    lab.write("cls.pem", &stranger.certificate_pem)?;
    lab.write("cls.key", &stranger.key_pem)?;
    lab.start_daemon().await?;
    let uplink = lab.shows("the alert", |s| s.uplink.clone().filter(|u| !u.last_alert.is_empty())).await?;
    assert_eq!(uplink.state(), UplinkState::Down);
    lab.finish().await?;
    Ok(())
}
