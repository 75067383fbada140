//! The life of the process: log → configuration (no port bound yet) → build → announce → run → drain → exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use ladewartd::{app::App, config, telemetry};

/// Asked to stop.
const DONE: u8 = 0;
/// A part of the daemon failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

/// The charging-site controller behind the Smart Meter Gateway.
///
/// Exit codes: 0 stopped as asked, 1 a part failed, 64 command line or configuration wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/ladewart/site.toml")]
    config: PathBuf,
    /// Only check the configuration and the files it names.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody to tell if standard error is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    telemetry::start();
    let app = config::load(&arguments.config).and_then(|(config, source)| App::prepare(config, &source));
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    if arguments.check {
        tracing::info!("the configuration {} can be used", arguments.config.display());
        return ExitCode::from(DONE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(app.run()) {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}
