//! `ladewart-curves`: the curves of the uplink's TLS against AWS-LC, and its handshakes against OpenSSL's.
//! `tests/run tls` runs it.
#![allow(clippy::print_stdout)]

mod aws_lc;
mod cost;
mod handshakes;
mod oracle;
// The other half of these tests makes the same certificates.
#[allow(dead_code)]
#[path = "../../src/pki.rs"]
mod pki;

/// The daemon's own curves and profile.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::pedantic)]
#[path = "../../../../daemon/src/tls"]
mod tls {
    mod brainpool;
    mod cbc;
    mod profile;

    pub(crate) use self::{
        brainpool::generate,
        profile::{Offer, Profile, provider},
    };
}

/// What they take from the daemon's other rooms.
#[allow(dead_code)]
mod config {
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct GatewayTls {
        pub(crate) tls13: bool,
        pub(crate) cbc: bool,
        pub(crate) omit_scsv: Option<bool>,
    }
}

#[allow(dead_code)]
mod identity {
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Algorithm {
        EcdsaP256,
        EcdsaP384,
        EcdsaBrainpoolP256r1,
        EcdsaBrainpoolP384r1,
        EcdsaBrainpoolP512r1,
    }

    pub(crate) mod request {
        use base64::{Engine as _, engine::general_purpose::STANDARD};

        pub(crate) fn pem(label: &str, der: &[u8]) -> String {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
        }
    }
}

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

const USAGE: &str = "usage: ladewart-curves source | oracle | cost | handshakes OPENSSL";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().context(USAGE)?;
    match what.to_str().context(USAGE)? {
        // Where cargo has put OpenSSL's source.
        "source" => {
            println!("{}", openssl_src::source_dir().display());
            Ok(())
        }
        "oracle" => oracle::run(),
        "cost" => cost::run(),
        "handshakes" => handshakes::run(Path::new(&arguments.next().context(USAGE)?)),
        _ => anyhow::bail!(USAGE),
    }
}

/// Writes `target/report/NAME.json`.
fn report(name: &str, value: &Value) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/report");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{name}.json")), serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}
