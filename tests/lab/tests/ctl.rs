//! `ladewartctl` against the real daemon: what an operator types, its exit codes, its JSON.

use std::process::Stdio;

use ladewart_lab::{
    clock::{eventually, wall},
    process,
    site::{CAR, Lab, Plan, SOON},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

async fn ctl(lab: &Lab, words: &[&str]) -> anyhow::Result<Said> {
    let output = Command::new(process::program("ladewartctl")?)
        .arg("--socket")
        .arg(lab.socket())
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_day() -> anyhow::Result<()> {
    let lab = Lab::start(Plan::default()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;

    let status = ctl(&lab, &["status"]).await?;
    assert_eq!(status.code, Some(0), "{}", status.err);
    for word in ["carport", "house", "grid"] {
        assert!(status.out.contains(word), "{word} is not in\n{}", status.out);
    }
    let status = ctl(&lab, &["status", "--output", "json"]).await?.json();
    assert_eq!(status["evses"][0]["id"], "carport");
    let evses = ctl(&lab, &["evse", "list", "-o", "json"]).await?;
    assert!(evses.out.contains("CONNECTOR_STATUS_CHARGING"), "{}", evses.out);
    assert!(ctl(&lab, &["meter", "list"]).await?.out.contains("eastron-sdm630"));
    assert!(ctl(&lab, &["uplink", "status"]).await?.out.contains("TLSv1.2"));

    let set = ctl(&lab, &["limit", "set", "4200 W", "--id", "dso", "--reason", "test"]).await?;
    assert_eq!(set.code, Some(0), "{}", set.err);
    lab.observer.limit(Some(4_200));
    assert!(ctl(&lab, &["limit", "list"]).await?.out.contains("dso"));
    let wrong = ctl(&lab, &["limit", "set", "4200", "--node", "attic"]).await?;
    assert_eq!(wrong.code, Some(1), "{}", wrong.err);
    assert!(wrong.err.contains("node"), "{}", wrong.err);
    assert_eq!(ctl(&lab, &["limit", "set", "many"]).await?.code, Some(2));
    lab.observer.limit(None);
    assert_eq!(ctl(&lab, &["limit", "clear", "dso"]).await?.code, Some(0));

    let export = ctl(&lab, &["journal", "export", "--output", "json"]).await?;
    assert!(export.out.lines().count() > 3 && export.out.contains("limit.accepted"), "{}", export.out);
    let verify = ctl(&lab, &["journal", "verify"]).await?;
    assert_eq!(verify.code, Some(0), "{}{}", verify.out, verify.err);
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_exit_3_and_a_broken_pipe_no_panic() -> anyhow::Result<()> {
    let mut lab = Lab::prepare(Plan::default()).await?;
    let nobody = ctl(&lab, &["status"]).await?;
    assert_eq!(nobody.code, Some(3), "{}", nobody.err);
    assert!(!nobody.err.contains("panicked"));
    lab.start_daemon().await?;
    let mut watch = Command::new(process::program("ladewartctl")?)
        .arg("--socket")
        .arg(lab.socket())
        .args(["watch", "--output", "json", "--interval", "100ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = watch.stdout.take().map(BufReader::new);
    let first = out.ok_or_else(|| anyhow::anyhow!("no pipe"))?.lines().next_line().await?;
    assert!(first.is_some_and(|l| l.starts_with('{')));
    // The reader is gone now; the next picture finds a broken pipe.
    lab.ready().await?;
    let ended = tokio::time::timeout(ladewart_lab::site::SOON, watch.wait_with_output()).await??;
    assert_eq!(ended.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("panicked"));
    lab.finish().await?;
    Ok(())
}

/// `limit set --then`: one limit whose watts change at their time, without another call.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_in_steps_follows_its_schedule() -> anyhow::Result<()> {
    let lab = Lab::start(Plan::default()).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;
    let later = |seconds| (wall() + jiff::SignedDuration::from_secs(seconds)).to_string();
    let step = format!("{}=4.2 kW", later(10));
    let words = ["-o", "json", "limit", "set", "8 kW", "--id", "dso", "--then", &step, "--for", "1h"];
    let set = ctl(&lab, &words).await?;
    assert_eq!(set.code, Some(0), "{}", set.err);
    let limit = &set.json()["limit"];
    assert_eq!(limit["steps"].as_array().map(Vec::len), Some(1), "{limit}");
    lab.observer.limit(Some(8_000));
    eventually(SOON, "the step has come", || {
        let watts = lab.connection.charging_watts();
        (watts > 3_000.0 && watts <= 4_200.0).then_some(())
    })
    .await?;
    lab.observer.limit(Some(4_200));
    let export = ctl(&lab, &["journal", "export", "--output", "json"]).await?;
    assert!(export.out.contains("limit.accepted") && export.out.contains("4200"), "{}", export.out);
    lab.observer.limit(None);
    assert_eq!(ctl(&lab, &["limit", "clear", "dso"]).await?.code, Some(0));
    lab.settle().await?;
    lab.finish().await?;
    Ok(())
}
