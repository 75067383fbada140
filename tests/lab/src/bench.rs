//! Measures the real daemon: how fast a limit reaches the charge points, how fast it is acknowledged, and how much
//! memory and disk the daemon takes. Prints tables and writes `target/report/*.json`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use ladewart_lab::{
    clock::eventually,
    connection::L123,
    evse::car::Car,
    process,
    site::{EvsePlan, Lab, Plan},
    wire::Before,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// What each car takes before a limit and what is left to it, A.
const FULL: u32 = 12;
const LEFT: u32 = 7;
/// The largest fuse that a node may have, A.
const LARGEST: u32 = 3000;

/// Runs all: one site after the other, each with so many charge points.
pub(crate) async fn run(sizes: &[u32], trials: u32) -> anyhow::Result<()> {
    ensure!(sizes.iter().all(|n| (1..=240).contains(n)), "use 1 to 240 EVSEs");
    ensure!(trials > 0 && !sizes.is_empty(), "at least one trial and one number of EVSEs");
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["EVSEs", "limit → …", "p50 ms", "p99 ms", "max ms"]);
    let mut lines = Vec::new();
    let mut idle_kib = 0;
    let mut evses = 0;
    for size in sizes {
        evses = *size;
        let (wire, acknowledged);
        (wire, acknowledged, idle_kib) = one(evses, trials).await?;
        for (name, times) in [("last setpoint on the wire", &wire), ("acknowledged (synced)", &acknowledged)]
        {
            let mut row = vec![evses.to_string(), name.to_owned()];
            row.extend([50, 99, 100].map(|p| format!("{:.2}", percentile(times, p))));
            table.add_row(row);
            lines.push(json!({ "step": name, "evses": evses, "trials": trials, "p50": percentile(times, 50),
                               "p99": percentile(times, 99), "max": percentile(times, 100) }));
        }
    }
    print(&format!("\n{trials} trials each\n{table}"))?;
    report("limit-latency", &json!({ "name": "limit-latency", "unit": "ms", "rows": lines, "peer": null }))?;

    let mut rows = vec![("resident, idle", idle_kib)];
    if let Some(bytes) = stripped_size(&process::program("ladewartd")?)? {
        rows.push(("program, stripped", bytes / 1024));
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["footprint", "KiB"]);
    for (what, kib) in &rows {
        table.add_row(vec![(*what).to_owned(), kib.to_string()]);
    }
    print(&format!("\n{table}"))?;
    let rows: Vec<Value> =
        rows.iter().map(|(what, kib)| json!({ "what": what, "evses": evses, "value": kib })).collect();
    report("footprint", &json!({ "name": "footprint", "unit": "KiB", "rows": rows, "peer": null }))
}

/// One site: milliseconds to the last setpoint and to the acknowledgement, and the daemon's memory before.
async fn one(evses: u32, trials: u32) -> anyhow::Result<(Vec<f64>, Vec<f64>, u64)> {
    let lab = Lab::start(Plan {
        fuse: (40 * evses).min(LARGEST),
        evses: (1..=evses).map(|i| EvsePlan::new(&format!("evse-{i}"), L123, 32)).collect(),
        lease: 60,
        raise_dwell: 0,
        pace: 20.0,
        ..Plan::default()
    })
    .await?;
    let (lab, idle_kib) = idle(lab, evses).await?;
    let (wire, acknowledged) = latency(&lab, evses, trials).await?;
    lab.finish().await?;
    Ok((wire, acknowledged, idle_kib))
}

async fn idle(mut lab: Lab, evses: u32) -> anyhow::Result<(Lab, u64)> {
    eventually(SOON, "all charge points are accepted", || {
        lab.evses.iter().all(|e| e.state().booted).then_some(())
    })
    .await?;
    ensure!(usize::try_from(evses)? == lab.evses.len(), "a charge point is missing");
    let kib = lab.daemon()?.resident_kib()?;
    Ok((lab, kib))
}

/// Milliseconds per trial: to the last setpoint needed, and to the acknowledgement.
async fn latency(lab: &Lab, evses: u32, trials: u32) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    for evse in &lab.evses {
        evse.plug(Car { phases: 3, max_amps: f64::from(FULL), room_wh: 1e9 });
        eventually(SOON, "the car is seen", || (evse.state().status == "Preparing").then_some(())).await?;
        evse.present("BENCH");
    }
    let full = f64::from(evses) * 3.0 * 230.0 * f64::from(FULL);
    let rested = || (lab.connection.allowed_watts() >= full - 1.0).then_some(());
    eventually(Duration::from_secs(90), "all cars charge", rested).await?;
    let watts = i64::from(evses) * 3 * 230 * i64::from(LEFT);
    let (mut wire, mut acknowledged) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        let before = Before::now(&lab.evses);
        lab.limit("bench", watts).await?;
        acknowledged.push(before.elapsed().as_secs_f64() * 1000.0);
        wire.push(before.until(&lab.evses, watts as f64).await?.as_secs_f64() * 1000.0);
        lab.clear("bench").await?;
        eventually(SOON, "the setpoints rise again", rested).await?;
    }
    Ok((wire, acknowledged))
}

/// Nearest-rank percentile.
fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(f64::NAN)
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Size in bytes of a stripped copy; `None` where there is no `strip`.
fn stripped_size(program: &Path) -> anyhow::Result<Option<u64>> {
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("stripped");
    fs::copy(program, &copy)?;
    for tool in ["strip", "llvm-strip"] {
        if std::process::Command::new(tool).arg(&copy).status().is_ok_and(|s| s.success()) {
            return Ok(Some(fs::metadata(&copy)?.len()));
        }
    }
    Ok(None)
}

fn report(name: &str, content: &Value) -> anyhow::Result<()> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/report");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{name}.json"));
    fs::write(&file, format!("{content:#}\n"))
        .with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([50, 99, 100].map(|p| format!("{}", percentile(&times, p))), ["100", "198", "200"]);
        assert_eq!(format!("{}", percentile(&[7.0], 99)), "7");
    }
}
