//! kill −9 in the middle: what was acknowledged is there, charges go on, nothing is billed twice.

use std::time::Duration;

use ladewart_lab::{
    backend,
    clock::eventually,
    connection::{L123, L231},
    frame::Frame,
    journal,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
};
use tokio::time::Instant;

fn two() -> Plan {
    Plan {
        evses: vec![EvsePlan::new("carport", L123, 32), EvsePlan::new("yard", L231, 32)],
        meter_interval: Duration::from_millis(300),
        call_timeout: Duration::from_secs(3),
        ..Plan::default()
    }
}

fn calls(lab: &Lab, wanted: &str) -> usize {
    lab.backend
        .log()
        .count(|(_, e)| matches!(e, backend::Event::Received(Frame::Call { action, .. }) if action == wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_limits_and_evidence_survive_a_kill() -> anyhow::Result<()> {
    let mut lab = Lab::start(two()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    lab.charge("yard", CAR, "BEN").await?;
    lab.limit("dso", 10_000).await?;
    let before = lab.operator.journal().await?;
    let head = journal::verify(&before)?;
    lab.kill_daemon().await?;
    // Nobody leads now: a charge ends at the EVSE, the other goes on within its lease.
    lab.evses[0].unplug();
    let started = Instant::now();
    lab.start_daemon().await?;
    let ready = started.elapsed();
    lab.ready().await?;
    eventually(SOON, "ADA's end arrives", || {
        lab.backend.transactions().iter().any(|t| t.tag == "ADA" && t.meter_stops.len() == 1).then_some(())
    })
    .await?;
    let site = lab
        .shows("the adopted charge", |s| {
            s.evses
                .iter()
                .any(|e| e.id == "yard" && e.connected && e.transaction.is_some())
                .then(|| s.clone())
        })
        .await?;
    assert_eq!(site.nodes[0].power_limit_watts, Some(10_000), "the limit still holds");
    assert!(lab.evses[1].state().transaction.is_some(), "BEN still charges");
    eventually(SOON, "the daemon leads again", || {
        let state = lab.evses[1].state();
        (state.limit > 6.0 && state.watts > 4_200.0).then_some(())
    })
    .await?;
    let after = lab.operator.journal().await?;
    journal::verify(&after)?;
    assert!(after.len() > before.len());
    assert_eq!(after[before.len() - 1].hash, head, "what was there before is there unchanged");
    lab.clear("dso").await?;
    assert_eq!(lab.settle().await?.len(), 2);
    assert_eq!((calls(&lab, "StartTransaction"), calls(&lab, "StopTransaction")), (2, 2), "exactly once");
    assert!(ready < Duration::from_secs(3), "READY after {ready:?}");
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_backend_survives_a_kill() -> anyhow::Result<()> {
    let mut lab = Lab::start(two()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    lab.gateway.cut();
    eventually(SOON, "the uplink is down", || (!lab.backend.connected("carport")).then_some(())).await?;
    lab.charge("yard", CAR, "BEN").await?;
    lab.evses[0].unplug();
    eventually(SOON, "everything is answered on the site", || {
        (lab.evses[0].state().transaction.is_none() && lab.evses[0].state().waiting == 0).then_some(())
    })
    .await?;
    lab.kill_daemon().await?;
    lab.start_daemon().await?;
    eventually(SOON, "the EVSEs are back", || lab.evses.iter().all(|e| e.state().connected).then_some(()))
        .await?;
    lab.gateway.restore();
    lab.ready().await?;
    assert_eq!(lab.settle().await?.len(), 2);
    assert_eq!((calls(&lab, "StartTransaction"), calls(&lab, "StopTransaction")), (2, 2), "exactly once");
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_leases_run_out() -> anyhow::Result<()> {
    let mut lab = Lab::start(Plan { lease: 2, ..two() }).await?;
    lab.ready().await?;
    let evse = lab.charge("carport", CAR, "ADA").await?;
    eventually(SOON, "the car is at full power", || (evse.state().watts > 11_000.0).then_some(())).await?;
    lab.kill_daemon().await?;
    eventually(Duration::from_secs(4), "the EVSE falls to its failsafe value", || {
        (lab.evses[0].state().currents.iter().all(|a| (*a - 6.0).abs() < 0.01)).then_some(())
    })
    .await?;
    lab.start_daemon().await?;
    eventually(SOON, "the daemon leads again", || (lab.evses[0].state().watts > 11_000.0).then_some(()))
        .await?;
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}
