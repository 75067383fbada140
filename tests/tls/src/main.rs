//! `ladewart-tls`: the TLS of the uplink against OpenSSL's own programs. `tests/run tls` runs it.
#![allow(clippy::print_stdout)]

mod bad;
mod chains;
mod made;
mod matrix;
mod ours;
mod peer;
mod pki;
mod scsv;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::peer::OpenSsl;

const USAGE: &str = "usage: ladewart-tls all | matrix | bad | scsv | made OPENSSL...: with the programs of OpenSSL to try, Debian's first";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().context(USAGE)?;
    let programs: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    anyhow::ensure!(!programs.is_empty(), USAGE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut peers = Vec::new();
        for program in &programs {
            peers.push(OpenSsl::at(program).await?);
        }
        let place = tempfile::tempdir()?;
        let what = what.to_str().context(USAGE)?;
        let all = what == "all";
        anyhow::ensure!(all || ["matrix", "bad", "scsv", "made"].contains(&what), USAGE);
        if all || what == "matrix" {
            matrix::run(&peers, place.path()).await?;
            chains::run(&peers, place.path()).await?;
        }
        if all || what == "bad" {
            bad::run(&peers, place.path()).await?;
        }
        if all || what == "scsv" {
            scsv::run(&peers, place.path()).await?;
        }
        if all || what == "made" {
            made::run(&peers, place.path()).await?;
        }
        Ok(())
    })
}

/// Writes `target/report/NAME.json`.
fn report(name: &str, value: &Value) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/report");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{name}.json")), serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

/// The versions of the peers, for a report.
fn versions(peers: &[OpenSsl]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}
