//! Bad frames, broken meters, doubled identities: the cause is shown, the rest goes on.

use std::time::Duration;

use ladewart_lab::{
    clock::eventually,
    connection::{L123, L231},
    evse::{Event, Evse, Settings},
    meter::Fault,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
};
use ladewart_proto::v1::Quality;
use serde_json::json;

fn two() -> Plan {
    Plan {
        evses: vec![EvsePlan::new("carport", L123, 32), EvsePlan::new("yard", L231, 32)],
        ..Plan::default()
    }
}

fn disconnects(evse: &Evse) -> usize {
    evse.log().count(|e| matches!(e, Event::Disconnected(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_giant_frames_harm_only_their_sender() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    let yard = lab.charge("yard", CAR, "BEN").await?;
    let carport = &lab.evses[0];
    for bad in [
        "",
        "{",
        "[,{}]",
        "{}",
        "[]",
        "[2]",
        "[2,\"1\"]",
        "[7,\"1\",{}]",
        "[2,3,4,5]",
        "[3,\"nobody-asked\",{}]",
    ] {
        carport.send_raw(bad);
    }
    lab.shows("the malformed frame", |s| {
        s.evses.iter().find(|e| e.id == "carport").filter(|e| !e.problem.is_empty()).map(|_| ())
    })
    .await?;
    lab.charge("carport", CAR, "ADA").await?;
    let before = disconnects(carport);
    carport.send_raw(format!("[2,\"big\",\"DataTransfer\",{{\"vendorId\":\"{}\"}}]", "x".repeat(3 << 20)));
    eventually(SOON, "a giant frame ends the sender's connection", || {
        (disconnects(carport) > before && carport.state().connected).then_some(())
    })
    .await?;
    assert_eq!(disconnects(yard), 0, "the other EVSE noticed nothing");
    eventually(SOON, "the other car is at full power", || (yard.state().watts > 11_000.0).then_some(()))
        .await?;
    assert_eq!(disconnects(yard), 0);
    assert_eq!(lab.settle().await?.len(), 2);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_configured_is_not_let_in() -> anyhow::Result<()> {
    let lab = Lab::start(Plan::default()).await?;
    lab.ready().await?;
    let stranger = Evse::start(Settings::new("stranger", &lab.listen().to_string()));
    let refused = stranger.log().wait(SOON, |e| match &e.what {
        Event::Unreachable(why) => Some(why.clone()),
        _ => None,
    });
    let why = refused.await.expect("the stranger is refused");
    assert!(why.contains("404"), "{why}");
    assert!(!lab.backend.connected("stranger"));
    lab.charge("carport", CAR, "ADA").await?;
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_one_identity_is_shown_and_harms_nobody_else() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    let yard = lab.charge("yard", CAR, "BEN").await?;
    let double = Evse::start(Settings::new("carport", &lab.listen().to_string()));
    lab.shows("the doubled identity", |s| {
        s.evses.iter().find(|e| e.id == "carport").filter(|e| !e.problem.is_empty()).map(|_| ())
    })
    .await?;
    drop(double);
    eventually(SOON, "the EVSE itself is back", || lab.evses[0].state().connected.then_some(())).await?;
    lab.charge("carport", CAR, "ADA").await?;
    assert_eq!(disconnects(yard), 0);
    assert_eq!(lab.settle().await?.len(), 2);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_fails_in_any_way_leads_to_failsafe_and_back() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    let evse = lab.charge("carport", CAR, "ADA").await?;
    for fault in [Fault::Exception, Fault::Short, Fault::Silent, Fault::NotANumber] {
        eventually(SOON, "the car is at full power", || (evse.state().watts > 11_000.0).then_some(()))
            .await?;
        lab.meter.fault(fault);
        let problem = lab
            .shows("the lost meter", |s| {
                s.meters.first().filter(|m| m.quality() == Quality::Lost).map(|m| m.problem.clone())
            })
            .await?;
        assert!(!problem.is_empty(), "{fault:?} is not explained");
        eventually(SOON, "the EVSE is at its failsafe value", || {
            (evse.state().limit <= 6.0 && evse.state().watts > 4_000.0).then_some(())
        })
        .await?;
        lab.meter.fault(Fault::None);
        lab.shows("the meter's return", |s| {
            s.meters.first().filter(|m| m.quality() == Quality::Good && m.problem.is_empty()).map(|_| ())
        })
        .await?;
    }
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_is_dead_at_the_start_stops_nobody() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Plan::default()).await?;
    // Bound and never listened on: refused at once.
    let dead = tokio::net::TcpSocket::new_v4()?;
    dead.bind(([127, 0, 0, 1], 0).into())?;
    let config =
        lab.configuration().replace(&lab.meter.address().to_string(), &dead.local_addr()?.to_string());
    lab.write("ladewartd.toml", &config)?;
    lab.start_daemon().await?;
    lab.ready().await?;
    let evse = lab.charge("carport", CAR, "ADA").await?;
    lab.shows("the dead meter", |s| s.meters.first().filter(|m| !m.problem.is_empty()).map(|_| ())).await?;
    assert!(evse.state().limit <= 6.0, "no more than the failsafe value without a meter");
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evse_that_refuses_setpoints_is_shown_and_counted() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    lab.charge("yard", CAR, "BEN").await?;
    let carport = lab.charge("carport", CAR, "ADA").await?;
    carport.refuse_profiles(true);
    lab.connection.house([55.0; 3]);
    lab.shows("the refusal", |s| {
        s.evses.iter().find(|e| e.id == "carport").filter(|e| !e.problem.is_empty()).map(|_| ())
    })
    .await?;
    // What the stubborn one may draw is taken from the other.
    eventually(SOON, "the other one gives way", || (lab.evses[1].state().watts < 1.0).then_some(())).await?;
    lab.connection.house([2.0; 3]);
    carport.refuse_profiles(false);
    eventually(SOON, "both are led again", || (lab.connection.charging_watts() > 22_000.0).then_some(()))
        .await?;
    lab.shows("that it is right again", |s| {
        s.evses.iter().find(|e| e.id == "carport").filter(|e| e.problem.is_empty()).map(|_| ())
    })
    .await?;
    lab.stop_charging_and_ignore_overload().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_evse_does_not_hold_up_a_limit_for_the_others() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    let yard = lab.charge("yard", CAR, "BEN").await?;
    lab.evses[0].mute(true);
    let asked = lab.backend.call("carport", "GetConfiguration", json!({}));
    let limited = async {
        lab.operator.limit("dso", 16_000).await?;
        eventually(Duration::from_secs(2), "the other EVSE follows at once", || {
            (yard.state().limit < 16.0).then_some(())
        })
        .await
    };
    let (answer, limited) = tokio::join!(asked, limited);
    assert!(answer.is_err(), "a mute EVSE cannot answer the backend");
    limited?;
    lab.evses[0].mute(false);
    lab.operator.clear("dso").await?;
    assert_eq!(lab.settle().await?.len(), 2);
    lab.finish().await?;
    Ok(())
}
