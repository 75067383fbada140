//! A journal of many days, made at once: its size on disk, the time to verify it, and the time to export one event.
//!
//! `cargo run --release -p ladewartd --example journal -- [DAYS [PER_DAY]]`: default 731 days of 400 entries, among them
//! an event of power reduction of one hour every day, with its samples, and a signature every hour. Writes
//! `target/report/journal-years.json`.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::{path::Path, time::Instant};

use anyhow::ensure;
use ladewartd::{
    journal::{Entry, Journal, MIGRATIONS, Signer},
    store::Store,
    time::Wall,
};
use serde_json::json;

const START: i64 = 1_795_000_000_000;
const DAY: i64 = 86_400_000;

fn entry(at: i64, kind: &str, subject: String, body: serde_json::Value) -> Entry {
    Entry { at: Wall(at), kind: kind.to_owned(), subject, actor: String::new(), body }
}

/// One day: an event of an hour at 18:00, and changes of the plan over the rest.
fn day(number: i64, per_day: i64) -> Vec<Entry> {
    let midnight = START + number * DAY;
    let limit = format!("dso-{number}");
    let name = format!("{limit}@{}", Wall(midnight + 64_800_000));
    let mut entries = Vec::new();
    let rest = (per_day - 24 - 66).max(0);
    for n in 0..rest {
        let at = midnight + n * DAY / rest.max(1);
        let body = json!({ "setpoints": { format!("evse-{}", n % 20): {
            "milliamps": 6000 + n % 26 * 1000, "failsafe_milliamps": 6000,
            "reason": "fuse main of 63.0 A less other load of up to 12.3 A",
        } } });
        entries.push(entry(at, "plan.changed", "Hof 3".to_owned(), body));
    }
    let mut event = |minute: i64, kind: &str, body| {
        entries.push(entry(midnight + 64_800_000 + minute * 60_000, kind, limit.clone(), body));
    };
    let watts = json!({ "node": "main", "watts": 10_000, "issuer": "cert:dso", "role": "grid", "reason": "feeder 7" });
    for kind in ["limit.received", "limit.accepted", "event.began"] {
        event(0, kind, watts.clone());
    }
    event(
        0,
        "event.effect",
        json!({ "event": name, "how": "commanded", "after_ms": 4200, "measured_watts": 9800 }),
    );
    for minute in 1..=60 {
        let body = json!({
            "event": name, "minute": Wall(midnight + 64_800_000 + minute * 60_000), "limit_watts": 10_000,
            "mean_watts": 9_700, "highest_watts": 9_950, "measurements": 60, "grid_watts": 14_000,
            "controllable_watts": 9_800,
        });
        event(minute, "event.sample", body);
    }
    event(60, "limit.expired", watts);
    event(
        60,
        "event.ended",
        json!({ "event": name, "how": "expired", "minutes": 60, "highest_mean_watts": 9_700 }),
    );
    entries.sort_by_key(|entry| entry.at);
    entries
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<i64>());
    let days = arguments.next().transpose()?.unwrap_or(731);
    let per_day = arguments.next().transpose()?.unwrap_or(400);
    let directory = tempfile::tempdir()?;
    let (store, writer) = Store::open(directory.path(), MIGRATIONS)?;
    let journal = Journal::new(store.clone());
    let signer = Signer::open(directory.path()).map_err(anyhow::Error::msg)?;

    let began = Instant::now();
    for number in 0..days {
        let all = day(number, per_day);
        for part in all.chunks(all.len().div_ceil(24).max(1)) {
            let at = part.last().map_or(Wall(START), |entry| entry.at);
            journal.append(part.to_vec()).await??;
            journal.sign(&signer, at).await?;
        }
    }
    let made = began.elapsed();
    let size = journal.size().await?;

    let began = Instant::now();
    let verdict = journal.verify().await?;
    let verified = began.elapsed();
    ensure!(verdict.intact, "{}", verdict.problem);

    let began = Instant::now();
    let event = journal.page_of(0, 0, "", &format!("dso-{}", days / 2), 10_000).await?;
    let exported = began.elapsed();
    ensure!(event.len() == 66, "the event has {} entries", event.len());

    let began = Instant::now();
    let half = Wall(START + days / 2 * DAY);
    let mut gone = 0;
    loop {
        match journal.rotate(half, half).await? {
            0 => break,
            some => gone += some,
        }
    }
    let rotated = began.elapsed();
    ensure!(journal.verify().await?.intact, "what is left after taking off {gone} entries is not intact");

    let mib = size as f64 / f64::from(1 << 20);
    let rows = [
        ("days", days as f64, ""),
        ("entries", verdict.entries as f64, ""),
        ("size on disk", mib, "MiB"),
        ("made in", made.as_secs_f64(), "s"),
        ("verified, with signatures, in", verified.as_secs_f64(), "s"),
        ("one event of 66 entries exported in", exported.as_secs_f64() * 1000.0, "ms"),
        ("half of it taken off in", rotated.as_secs_f64(), "s"),
    ];
    let mut report = Vec::new();
    for (name, value, unit) in rows {
        println!("{name:<38} {value:>12.2} {unit}");
        report.push(json!({ "name": name, "value": value, "unit": unit }));
    }
    let path = Path::new("target/report");
    std::fs::create_dir_all(path)?;
    let report = json!({ "name": "journal-years", "unit": "mixed", "rows": report, "peer": null });
    std::fs::write(path.join("journal-years.json"), report.to_string())?;
    drop((journal, store));
    writer.join();
    Ok(())
}
