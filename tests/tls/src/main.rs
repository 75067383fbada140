//! `ladewart-tls`: the TLS of the uplink against OpenSSL, and its curves against AWS-LC. `tests/run tls` runs it.

mod aws_lc;
mod bad;
mod bench;
mod matrix;
mod oracle;
mod ours;
mod peer;
mod pki;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::peer::OpenSsl;

const USAGE: &str = "usage: ladewart-tls source | oracle | matrix | bad | scsv | bench, the last four with the programs \
                     of OpenSSL to try";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().context(USAGE)?;
    let programs: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut peers = Vec::new();
        for program in &programs {
            peers.push(OpenSsl::at(program).await?);
        }
        let place = tempfile::tempdir()?;
        match what.to_str().context(USAGE)? {
            // Where cargo has put the source, and its version.
            "source" => {
                println!("{}", openssl_src::source_dir().display());
                Ok(())
            }
            "oracle" => oracle::run(),
            "matrix" => matrix::run(&peers, place.path()).await,
            "bad" => bad::run(&peers, place.path()).await,
            "scsv" => bad::scsv(&peers, place.path()).await,
            "bench" => bench::run(peers.last().context(USAGE)?, place.path()).await,
            _ => anyhow::bail!(USAGE),
        }
    })
}

/// Writes `target/report/NAME.json`.
fn report(name: &str, value: &Value) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/report");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{name}.json")), serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}
