//! Tariffs, named variables, formulas and rules, as an operator and a supplier use them, against the real daemon.

use std::{process::Stdio, time::Duration};

use anyhow::ensure;
use jiff::{SignedDuration, tz::TimeZone};
use ladewart_lab::{
    clock::{eventually, wall},
    connection::{L123, L231, L312},
    process,
    site::{CAR, EvsePlan, Lab, Plan, SOON},
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

#[ignore = "waits for dwells and settings to pass: the part \"rules\" runs it"]
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

/// One EVSE per kind of rule. `FROM`, `TO`, `BY` are times, `TODAY` and `OTHER` weekdays.
const KINDS: &str = r#"
[tariff]
otherwise = { price = "30 ct/kWh" }
[[variable]]
name = "MODE"
max = 9
default = 0
[[contact]]
id = "key"
line = { file = "key" }
limited_when = "closed"
debounce = "50 ms"
limit = "1000 kW"
[[user]]
name = "eva"
cards = ["EVA"]
[[rule]]
id = "other-day"
evse = "time"
from = "FROM"
to = "TO"
weekdays = "OTHER"
current = "7 A"
[[rule]]
id = "today"
evse = "time"
from = "FROM"
to = "TO"
weekdays = "TODAY"
current = "10 A"
[[rule]]
id = "cheapest"
evse = "cheap"
cheapest = { lasting = "30 min", by = "BY" }
current = "16 A"
[[rule]]
id = "not-now"
evse = "cheap"
current = "6 A"
[[rule]]
id = "below"
evse = "price"
price_below = "20 ct/kWh"
current = "14 A"
[[rule]]
id = "above"
evse = "price"
current = "9 A"
[[rule]]
id = "key"
evse = "input"
input = { contact = "key", is = "closed" }
current = "8 A"
[[rule]]
id = "fast"
evse = "cel"
when = "MODE == 2 && evse.cel.charging && hour >= 0"
formula = "MODE * 4 + 3"
[[rule]]
id = "place"
evse = "user"
when = "MODE == 2"
current = "7 A"
[[rule]]
id = "place-else"
evse = "user"
current = "13 A"
[[rule]]
id = "eva"
user = "eva"
current = "11 A"
[[rule]]
id = "sun"
evse = "sun"
surplus = { start_after = "1 s", stop_after = "1 s" }
"#;

/// Waits until an EVSE allows so many amperes; 0 is a pause.
async fn allows(lab: &Lab, id: &str, amps: f64) -> anyhow::Result<()> {
    let evse = lab.evse(id).ok_or_else(|| anyhow::anyhow!("there is no EVSE {id}"))?;
    let reached = || ((evse.state().limit - amps).abs() < 0.05).then_some(());
    if let Err(error) = eventually(SOON, &format!("{id} allows {amps} A"), reached).await {
        let why = done(lab, &["explain", "evse", id]).await?;
        anyhow::bail!("{error}; it allows {}\n{why}", evse.state().limit);
    }
    Ok(())
}

/// What the daemon says of an EVSE, by gRPC; and the program says the same.
async fn says(lab: &Lab, id: &str, wanted: &[&str]) -> anyhow::Result<()> {
    let answer = lab.operator.explain(id).await?;
    let lines: Vec<_> = answer.lines.iter().map(|line| format!("{}: {}", line.about, line.says)).collect();
    let text = [vec![answer.because.clone()], lines, answer.changes.clone()].concat().join("\n");
    let told = done(lab, &["explain", "evse", id, "-o", "json"]).await?;
    ensure!(told.contains(&answer.because.replace('"', "\\\"")), "{} is not in {told}", answer.because);
    for part in wanted {
        ensure!(text.contains(part), "{part:?} is not in what is said of {id}:\n{text}");
    }
    Ok(())
}

fn kinds() -> String {
    let zone = TimeZone::get("Europe/Berlin").expect("the tests' calendar");
    let now = wall().to_zoned(zone);
    let hours = |h| now.checked_add(SignedDuration::from_hours(h)).expect("within the calendar");
    let clock = |h| hours(h).strftime("%H:%M").to_string();
    // A window belongs to the day on which it begins.
    let names = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];
    let begins = usize::try_from(hours(-2).weekday().to_monday_zero_offset()).unwrap_or(0);
    KINDS
        .replace("FROM", &clock(-2))
        .replace("\"TO\"", &format!("\"{}\"", clock(2)))
        .replace("BY", &clock(4))
        .replace("OTHER", names[(begins + 3) % 7])
        .replace("TODAY", names[begins])
}

#[ignore = "waits for dwells and settings to pass: the part \"rules\" runs it"]
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_rule_reaches_its_car_and_says_why() -> anyhow::Result<()> {
    let ids = ["time", "cheap", "price", "input", "cel", "user", "sun"];
    let evses = ids.iter().zip([L123, L231, L312].iter().cycle()).map(|(id, w)| EvsePlan::new(id, *w, 32));
    let plan =
        Plan { fuse: 300, evses: evses.collect(), extra: kinds(), house: [-12.0; 3], ..Plan::default() };
    let mut lab = Lab::prepare(plan).await?;
    lab.write("key", "0")?;
    lab.start_daemon().await?;
    lab.ready().await?;
    let announce = |id, sequence, price, from: i64, lasting| {
        let from = (wall() + SignedDuration::from_mins(from)).to_string();
        let words = ["tariff", "announce", "--id", id, "--sequence", sequence, "--price", price, "--from"];
        [words.map(str::to_owned).to_vec(), vec![from, "--for".to_owned(), lasting]].concat()
    };
    let cheap = announce("now", "1", "10 ct/kWh", -30, "1h".to_owned());
    done(&lab, &cheap.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for id in ids {
        lab.charge(id, CAR, if id == "user" { "EVA" } else { "ADA" }).await?;
    }

    allows(&lab, "time", 10.0).await?;
    says(&lab, "time", &["rule \"today\"", "rule other-day: does not hold: it is not within"]).await?;

    allows(&lab, "cheap", 16.0).await?;
    says(&lab, "cheap", &["rule \"cheapest\" (within the cheapest 0.5 h before"]).await?;
    allows(&lab, "price", 14.0).await?;
    says(&lab, "price", &["rule \"below\" (10 ct/kWh is below 20 ct/kWh)"]).await?;
    let dear = announce("now", "2", "60 ct/kWh", -30, "1h".to_owned());
    done(&lab, &dear.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    allows(&lab, "cheap", 6.0).await?;
    says(&lab, "cheap", &["rule \"not-now\"", "does not hold: it is not within", "the next begins at"])
        .await?;
    allows(&lab, "price", 9.0).await?;
    says(&lab, "price", &["rule \"above\"", "60 ct/kWh is not below 20 ct/kWh"]).await?;

    allows(&lab, "input", 32.0).await?;
    lab.write("key", "1")?;
    allows(&lab, "input", 8.0).await?;
    says(&lab, "input", &["rule \"key\" (key is closed)"]).await?;
    lab.write("key", "0")?;
    allows(&lab, "input", 32.0).await?;

    allows(&lab, "cel", 32.0).await?;
    says(&lab, "cel", &["rule fast: does not hold", "MODE = 0"]).await?;
    // The smaller of place and user: at first the user's.
    allows(&lab, "user", 11.0).await?;
    says(&lab, "user", &["user rule \"eva\"", "rule place-else: holds", "rule eva: holds"]).await?;
    done(&lab, &["variable", "set", "MODE", "2"]).await?;
    allows(&lab, "cel", 11.0).await?;
    says(&lab, "cel", &["MODE * 4 + 3 = 11.0 A", "rule fast must no longer hold, or allow more"]).await?;
    allows(&lab, "user", 7.0).await?;
    says(&lab, "user", &["rule \"place\" (MODE == 2)", "rule eva: holds"]).await?;
    done(&lab, &["variable", "clear", "MODE"]).await?;
    allows(&lab, "user", 11.0).await?;

    // 12 A per phase would be fed in if nobody charged.
    allows(&lab, "sun", 12.0).await?;
    says(&lab, "sun", &["rule \"sun\": surplus of 8.2", "on all phases"]).await?;
    lab.connection.house([2.0; 3]);
    allows(&lab, "sun", 0.0).await?;
    says(&lab, "sun", &["is less than 4.14 kW for the least current"]).await?;
    assert_eq!(lab.settle().await?.len(), ids.len());
    lab.finish().await?;
    Ok(())
}
