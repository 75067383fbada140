//! Power limits of the grid operator: by call, by contact, with an end; wrong ones are refused by field.

use jiff::SignedDuration;
use ladewart_lab::{
    clock::{eventually, wall},
    connection::{L123, L231},
    operator::stamp,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
};
use ladewart_proto::v1::{Change, ContactState, LimitStage, SetLimitRequest};
use tonic::Code;

fn two() -> Plan {
    Plan {
        evses: vec![EvsePlan::new("carport", L123, 32), EvsePlan::new("yard", L231, 32)],
        ..Plan::default()
    }
}

async fn both_charge(lab: &Lab) -> anyhow::Result<()> {
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    lab.charge("yard", CAR, "BEN").await?;
    eventually(SOON, "both cars are at full power", || {
        (lab.connection.charging_watts() > 22_000.0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_from_acknowledgement_to_clearing() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    both_charge(&lab).await?;
    lab.limit("dso", 10_000).await?;
    let limit = lab.stage("dso", LimitStage::Effective).await?;
    let times = [&limit.received_at, &limit.accepted_at, &limit.applied_at, &limit.effective_at];
    let times: Vec<_> = times.iter().map(|t| t.as_ref().map(|t| (t.seconds, t.nanos))).collect();
    // Reducing comes first, the sync of the evidence runs beside it: accepted and applied may come in either order.
    assert!(times.iter().all(Option::is_some), "{times:?}");
    assert!(times[1..].iter().all(|t| *t >= times[0]) && times[3] >= times[2], "{times:?}");
    assert!(limit.measured_watts.is_some_and(|w| (1..=10_000).contains(&w)), "{limit:?}");
    assert!(lab.connection.charging_watts() > 8_000.0, "the limit is used");

    let again =
        SetLimitRequest { id: "dso".into(), watts: 10_000, reason: "lab".into(), ..Default::default() };
    assert_eq!(lab.operator.set_limit(again).await?.change(), Change::None, "the same again changes nothing");
    let smaller = SetLimitRequest { id: "dso".into(), watts: 5_000, ..Default::default() };
    assert_eq!(lab.operator.set_limit(smaller).await?.change(), Change::Replaced);
    lab.observer.limit(Some(5_000));
    eventually(SOON, "one car charges, one waits", || {
        let watts = lab.connection.charging_watts();
        (watts > 4_000.0 && watts <= 5_000.0).then_some(())
    })
    .await?;
    lab.clear("dso").await?;
    lab.stage("dso", LimitStage::Cleared).await?;
    eventually(SOON, "both cars are at full power again", || {
        (lab.connection.charging_watts() > 22_000.0).then_some(())
    })
    .await?;
    assert_eq!(lab.settle().await?.len(), 2);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_watts_pause_the_cars_and_keep_their_transactions() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    both_charge(&lab).await?;
    lab.limit("dso", 0).await?;
    eventually(SOON, "both cars pause", || {
        lab.evses.iter().all(|e| e.state().status == "SuspendedEVSE").then_some(())
    })
    .await?;
    lab.stage("dso", LimitStage::Effective).await?;
    assert!(lab.evses.iter().all(|e| e.state().transaction.is_some()));
    lab.clear("dso").await?;
    eventually(SOON, "both cars go on", || (lab.connection.charging_watts() > 22_000.0).then_some(()))
        .await?;
    assert_eq!(lab.settle().await?.len(), 2);
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_begins_and_expires_by_itself() -> anyhow::Result<()> {
    let lab = Lab::start(two()).await?;
    both_charge(&lab).await?;
    let (from, until) = (wall() + SignedDuration::from_secs(2), wall() + SignedDuration::from_secs(6));
    let request = SetLimitRequest {
        id: "window".into(),
        watts: 9_000,
        valid_from: Some(stamp(from)),
        valid_until: Some(stamp(until)),
        ..Default::default()
    };
    lab.operator.set_limit(request).await?;
    assert!(lab.connection.charging_watts() > 22_000.0, "not yet");
    eventually(SOON, "the limit begins", || (lab.connection.charging_watts() <= 9_000.0).then_some(()))
        .await?;
    assert!(wall() >= from && wall() < until, "within its time");
    lab.stage("window", LimitStage::Expired).await?;
    assert!(wall() >= until);
    eventually(SOON, "both cars are at full power again", || {
        (lab.connection.charging_watts() > 22_000.0).then_some(())
    })
    .await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_limit_is_refused_by_field_and_changes_nothing() -> anyhow::Result<()> {
    let lab = Lab::start(Plan::default()).await?;
    let good = || SetLimitRequest { id: "dso".into(), watts: 10_000, ..Default::default() };
    let (early, late) = (stamp(wall()), stamp(wall() + SignedDuration::from_secs(60)));
    let cases = [
        ("watts", SetLimitRequest { watts: -1, ..good() }),
        ("node", SetLimitRequest { node: "attic".into(), ..good() }),
        ("valid_until", SetLimitRequest { valid_from: Some(late), valid_until: Some(early), ..good() }),
        ("id", SetLimitRequest { id: "no spaces".into(), ..good() }),
        ("id", SetLimitRequest { id: "x".repeat(65), ..good() }),
        ("reason", SetLimitRequest { reason: "x".repeat(201), ..good() }),
    ];
    for (field, request) in cases {
        let shown = format!("{request:?}");
        let status = lab.operator.set_limit(request).await.expect_err(&shown);
        assert_eq!(status.code(), Code::InvalidArgument, "{shown}: {status:?}");
        assert!(status.message().contains(field), "{shown}: {status:?}");
    }
    assert!(lab.operator.limit_record("dso").await?.is_none());
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_contact_limits_and_a_relay_follows() -> anyhow::Result<()> {
    let extra = r#"
[[contact]]
id = "w4"
line = { file = "w4" }
limited_when = "closed"
debounce = "50 ms"
limit = "10 kW"

[[relay]]
id = "heat-pump"
line = { file = "k1" }
function = "unlimited"
"#;
    let mut lab = Lab::prepare(Plan { extra: extra.to_owned(), ..two() }).await?;
    lab.write("w4", "0")?;
    lab.start_daemon().await?;
    both_charge(&lab).await?;
    let relay = || std::fs::read_to_string(lab.path("k1")).unwrap_or_default().trim().to_owned();
    eventually(SOON, "the relay is energised", || (relay() == "1").then_some(())).await?;
    lab.write("w4", "1")?;
    eventually(SOON, "the cars follow the contact", || {
        (lab.connection.charging_watts() <= 10_000.0).then_some(())
    })
    .await?;
    lab.observer.limit(Some(10_000));
    eventually(SOON, "the relay falls", || (relay() == "0").then_some(())).await?;
    let issuer = lab.shows("the contact's limit", |s| s.limits.first().map(|l| l.issuer.clone())).await?;
    assert_eq!(issuer, "contact:w4");
    lab.observer.limit(None);
    lab.write("w4", "0")?;
    eventually(SOON, "the cars are free again", || {
        (lab.connection.charging_watts() > 22_000.0).then_some(())
    })
    .await?;
    eventually(SOON, "the relay is energised again", || (relay() == "1").then_some(())).await?;
    std::fs::remove_file(lab.path("w4"))?;
    eventually(SOON, "an unreadable contact limits", || {
        (lab.connection.charging_watts() <= 10_000.0).then_some(())
    })
    .await?;
    lab.shows("the unreadable contact", |s| {
        s.contacts
            .first()
            .filter(|c| c.state() == ContactState::Unreadable && !c.problem.is_empty())
            .map(|_| ())
    })
    .await?;
    lab.finish().await?;
    Ok(())
}
