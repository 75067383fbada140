//! The main job against the real daemon: cars charge behind the gateway, the backend bills, the fuse holds.

use std::time::Duration;

use ladewart_lab::{
    clock::eventually,
    connection::{L123, L231, L312},
    evse::car::Car,
    gateway,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
};
use serde_json::json;

fn three() -> Plan {
    Plan {
        fuse: 50,
        evses: vec![
            EvsePlan::new("carport", L123, 32),
            EvsePlan::new("yard", L231, 32),
            EvsePlan::new("gate", L312, 32),
        ],
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_cars_share_the_fuse_and_the_bill_equals_their_registers() -> anyhow::Result<()> {
    let lab = Lab::start(three()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    lab.charge("yard", Car { max_amps: 32.0, ..CAR }, "BEN").await?;
    lab.charge("gate", Car { phases: 1, max_amps: 32.0, ..CAR }, "CEM").await?;
    // 48 A are left for the cars on each phase; the one-phase car at the gate is on L3.
    eventually(SOON, "the room is used and kept", || {
        let amps = lab.connection.currents();
        (amps.iter().any(|a| *a > 46.0) && amps.iter().all(|a| *a <= 50.0)).then_some(())
    })
    .await?;
    lab.connection.house([2.0, 30.0, 2.0]);
    eventually(SOON, "the load on L2 throttles who is on L2", || {
        let amps = lab.connection.currents();
        (amps[1] <= 50.0 && lab.evses[0].state().limit + lab.evses[1].state().limit <= 20.0).then_some(())
    })
    .await?;
    // The one-phase car at the gate is on L3 alone: nobody takes L2 from it.
    eventually(SOON, "who is not on L2 gets what L3 has", || {
        (lab.evses[2].state().limit >= 20.0).then_some(())
    })
    .await?;
    let lines = lab.settle().await?;
    assert_eq!(lines.len(), 3, "{lines:?}");
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_starts_and_stops_charges_and_reads_the_configuration() -> anyhow::Result<()> {
    let lab = Lab::start(Plan::default()).await?;
    lab.ready().await?;
    let evse = &lab.evses[0];
    evse.plug(CAR);
    eventually(SOON, "the car is seen", || (evse.state().status == "Preparing").then_some(())).await?;
    let accepted = json!({ "status": "Accepted" });
    let start = json!({ "connectorId": 1, "idTag": "REMOTE" });
    assert_eq!(lab.backend.call("carport", "RemoteStartTransaction", start).await?, accepted);
    let id = eventually(SOON, "the remote start charges", || {
        evse.state().transaction.flatten().filter(|_| evse.state().watts > 1000.0)
    })
    .await?;
    let configuration = lab.backend.call("carport", "GetConfiguration", json!({})).await?;
    assert!(configuration["configurationKey"].as_array().is_some_and(|keys| !keys.is_empty()));
    let unknown = lab.backend.call("carport", "GetDiagnostics", json!({ "location": "ftp://x" })).await;
    assert!(unknown.unwrap_err().to_string().contains("NotImplemented"), "errors pass through unchanged");
    let backend_id = lab.backend.transactions()[0].id;
    assert_eq!(id, backend_id, "with the uplink up, both sides know one id");
    let stop = json!({ "transactionId": backend_id });
    assert_eq!(lab.backend.call("carport", "RemoteStopTransaction", stop).await?, accepted);
    eventually(SOON, "the remote stop is billed", || {
        (lab.backend.transactions()[0].meter_stops.len() == 1).then_some(())
    })
    .await?;
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

/// Own setpoints never leak: the backend sees no answer to anything it did not ask.
#[tokio::test(flavor = "multi_thread")]
async fn the_backend_sees_only_what_concerns_it() -> anyhow::Result<()> {
    let lab = Lab::start(Plan { lease: 2, ..Plan::default() }).await?;
    lab.ready().await?;
    let evse = lab.charge("carport", CAR, "ADA").await?;
    let renewals = |n| {
        eventually(SOON, "setpoints are renewed", move || {
            let profiles = evse.log().count(|e| matches!(e, ladewart_lab::evse::Event::Profile(_)));
            (profiles >= n).then_some(())
        })
    };
    renewals(6).await?;
    for entry in lab.backend.log().entries() {
        let (_, event) = &entry.what;
        let foreign = match event {
            ladewart_lab::backend::Event::Received(ladewart_lab::frame::Frame::Call { action, .. }) => {
                action == "SetChargingProfile"
            }
            ladewart_lab::backend::Event::Received(_) | ladewart_lab::backend::Event::Garbage(_) => true,
            _ => false,
        };
        assert!(!foreign, "the backend got {event:?} although it asked nothing");
    }
    assert_eq!(evse.log().count(|e| matches!(e, ladewart_lab::evse::Event::Stray(_))), 0);
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hands_over_byte_by_byte_changes_nothing() -> anyhow::Result<()> {
    let lab = Lab::prepare(Plan::default()).await?;
    lab.gateway.faults(gateway::Faults { trickle: true, ..Default::default() });
    let mut lab = lab;
    lab.start_daemon().await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    let told = eventually(Duration::from_secs(30), "meter values pass", || {
        lab.backend.transactions().first().map(|t| t.meter_values).filter(|n| *n >= 2)
    });
    told.await?;
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}
