//! `ladewartctl`: shows a charging site and steers it, over the daemon's Unix socket.
//!
//! In: the command line. Out: tables for people, JSON for programs, sentences about what went wrong on the
//! standard error; the exit code says which kind of wrong. Invariant: what came from outside (an EVSE's model,
//! a limit's reason) never reaches a terminal with control characters in it.
//!
//! One file per noun: each holds its part of the command line, its calls and its tables.

mod args;
mod clock;
mod connect;
mod device;
mod documents;
mod evse;
mod explain;
mod failure;
mod identity;
mod journal;
mod json;
mod limit;
mod meter;
mod output;
mod quantity;
mod reverse;
mod session;
mod source;
mod status;
mod table;
mod tariff;
mod transaction;
mod update;
mod uplink;
mod variable;
mod version;
mod watch;
mod words;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(session::run(cli));
            // A write to a pipe that nobody reads must not hold up the end.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(failure::Failure::Wrong(format!("the program cannot start: {error}"))),
    };
    failure::exit(ended)
}
