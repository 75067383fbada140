//! `ladewart-lab demo` tells the main job live, `bench` and `speed` measure it, `crash` tries to break it.

mod bench;
mod crash;
mod demo;
mod speed;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use ladewart_lab::process;

/// A simulated site around the real daemon.
#[derive(Debug, Parser)]
#[command(name = "ladewart-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job as a story, live and checked.
    Demo {
        /// Without pauses, cars in a hurry: about 20 s.
        #[arg(long)]
        fast: bool,
    },
    /// From a limit to the last setpoint on the wire; memory and size of the daemon.
    Bench {
        /// Charge points; one row of the table for each number.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 20, 50, 200])]
        evses: Vec<u32>,
        /// Limits set, for each.
        #[arg(long, default_value_t = 40)]
        trials: u32,
    },
    /// The daemon killed and the uplink cut at random points under load; nothing may be lost, doubled or reordered.
    Crash {
        /// kill -9 of the daemon.
        #[arg(long, default_value_t = 50)]
        kills: u32,
        /// Cuts of the uplink.
        #[arg(long, default_value_t = 200)]
        cuts: u32,
        /// Charge points.
        #[arg(long, default_value_t = 20)]
        evses: u32,
        /// MeterValues per second of all of them.
        #[arg(long, default_value_t = 50)]
        rate: u32,
        /// For the random points; drawn if it is not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What relaying costs, beside other relays and none.
    Speed {
        /// Numbers of connections.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 200])]
        connections: Vec<u32>,
        /// How long each is measured.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before the runtime: an interrupt ends cargo and us together.
    let result = process::build(true).and_then(|()| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            tokio::select! {
                result = run(arguments.command) => result,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "\nladewart-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { fast } => demo::run(fast).await,
        Command::Bench { evses, trials } => bench::run(&evses, trials).await,
        Command::Crash { kills, cuts, evses, rate, seed } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
            crash::run(crash::Hardship { kills, cuts, evses, rate, seed }).await
        }
        Command::Speed { connections, seconds } => speed::run(&connections, seconds).await,
    }
}
