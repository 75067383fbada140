//! Tariffs, named variables, formulas and rules, as an operator and a supplier use them, against the real daemon.

use std::{process::Stdio, time::Duration};

use anyhow::ensure;
use ladewart_lab::{
    process,
    site::{CAR, Lab, Plan, SOON},
};
use tokio::process::Command;

const RULES: &str = r#"
[[variable]]
name = "AVAIL"
unit = "%"
default = 100
[[limit]]
id = "avail"
watts = "55000 * AVAIL / 100"
otherwise = "4.2 kW"
[tariff]
otherwise = { level = "normal" }
[[rule]]
id = "dear"
level = "high"
current = "0 A"
"#;

async fn ctl(lab: &Lab, words: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(process::program("ladewartctl")?)
        .arg("--socket")
        .arg(lab.socket())
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

async fn done(lab: &Lab, words: &[&str]) -> anyhow::Result<String> {
    let (code, text) = ctl(lab, words).await?;
    ensure!(code == Some(0), "{words:?}: {code:?} {text}");
    Ok(text)
}

/// Waits until a command shows a text.
async fn shows(lab: &Lab, words: &[&str], wanted: &str) -> anyhow::Result<()> {
    let wait = async {
        loop {
            let text = done(lab, words).await?;
            if text.contains(wanted) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    match tokio::time::timeout(SOON, wait).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("{words:?} never shows {wanted:?}:\n{}", done(lab, words).await?),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_limits_and_a_tariff_pauses() -> anyhow::Result<()> {
    let lab = Lab::start(Plan { extra: RULES.to_owned(), ..Plan::default() }).await?;
    lab.ready().await?;
    lab.charge("carport", CAR, "ADA").await?;

    shows(&lab, &["limit", "list"], "55 kW").await?;
    assert!(done(&lab, &["variable", "set", "AVAIL", "10", "--for", "1h"]).await?.contains("AVAIL is set"));
    shows(&lab, &["limit", "list"], "5.5 kW").await?;
    let list = done(&lab, &["variable", "list"]).await?;
    assert!(list.contains("10 %") && list.contains("uid:"), "{list}");
    assert!(done(&lab, &["variable", "set", "AVAIL", "10", "--for", "1h"]).await?.contains("AVAIL"));
    let (code, text) = ctl(&lab, &["variable", "set", "AVAIL", "101"]).await?;
    assert!(code == Some(1) && text.contains("use 0 to 100 %"), "{text}");
    let (code, text) = ctl(&lab, &["variable", "set", "AVIAL", "1"]).await?;
    assert!(code == Some(1) && text.contains("there is no variable"), "{text}");
    done(&lab, &["variable", "clear", "AVAIL"]).await?;
    shows(&lab, &["limit", "list"], "55 kW").await?;

    let announce = ["tariff", "announce", "--id", "t1", "--level", "high", "--for", "1h"];
    assert!(done(&lab, &announce).await?.contains("is announced"));
    shows(&lab, &["evse", "list", "-o", "json"], r#"rule \"dear\" (tariff high)"#).await?;
    let why = done(&lab, &["explain", "evse", "carport"]).await?;
    for text in
        ["carport gets 0.0 A per phase: rule \"dear\" (tariff high)", "rule dear", "must no longer hold"]
    {
        assert!(why.contains(text), "{text} is not in\n{why}");
    }
    assert!(ctl(&lab, &["explain", "evse", "attic"]).await?.1.contains("there is no EVSE"));
    assert!(done(&lab, &["tariff", "list"]).await?.contains("t1"));
    assert!(done(&lab, &["tariff", "rates"]).await?.contains("tariff \"t1\" of uid:"));
    let twice = ["tariff", "announce", "--id", "t2", "--level", "low", "--for", "2h"];
    let (code, text) = ctl(&lab, &twice).await?;
    assert!(code == Some(1) && text.contains("would hold together with \"t1\""), "{text}");
    assert!(done(&lab, &["tariff", "withdraw", "t1"]).await?.contains("is withdrawn"));
    assert!(done(&lab, &["tariff", "withdraw", "t1"]).await?.contains("nothing changed"));
    shows(&lab, &["evse", "list", "-o", "json"], "own maximum").await?;

    let journal = done(&lab, &["journal", "export", "-o", "json"]).await?;
    for kind in
        ["variable.set", "variable.cleared", "tariff.announced", "tariff.withdrawn", "AVAIL = 10 by uid:"]
    {
        assert!(journal.contains(kind), "{kind} is not in the journal");
    }
    done(&lab, &["journal", "verify"]).await?;
    // The same file is judged without the daemon, and a changed one is not taken.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("journal.jsonl");
    std::fs::write(&file, &journal)?;
    let path = file.to_str().unwrap_or_default();
    let told = done(&lab, &["journal", "verify", "--file", path]).await?;
    assert!(told.contains("The export is intact"), "{told}");
    std::fs::write(&file, journal.replacen("AVAIL = 10", "AVAIL = 99", 1))?;
    let (code, told) = ctl(&lab, &["journal", "verify", "--file", path]).await?;
    assert!(code == Some(1) && told.contains("was changed"), "{told}");
    let event = done(&lab, &["journal", "event", "formula-avail", "--as", "csv"]).await?;
    assert!(event.lines().count() > 3 && event.starts_with("entry,time,kind"), "{event}");
    let page = done(&lab, &["journal", "event", "formula-avail", "--as", "html"]).await?;
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "{page}");
    lab.finish().await?;
    Ok(())
}
