//! The command line as a whole. The nouns' own parts are in their files.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    device, documents, evse, explain, failure::EXIT_CODES, identity, journal, limit, meter, reverse, tariff,
    transaction, update, uplink, variable, watch,
};

/// Shows a charging site and steers it, through the daemon on this machine.
#[derive(Debug, Parser)]
#[command(name = "ladewartctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The daemon's socket.
    #[arg(
        long,
        global = true,
        env = "LADEWART_SOCKET",
        hide_env_values = true,
        default_value = "/run/ladewart/ladewartd.sock",
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
    /// Tables for people or JSON for programs. Without it: tables; `journal export` into a pipe: JSON.
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences; times in local time.
    Table,
    /// One JSON document, or one per line where there are many; times in UTC.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The site on one screen: nodes, EVSEs, meters, limits, uplink.
    Status,
    /// The same, live: redraws on a terminal, a line per change otherwise.
    Watch(watch::Watch),
    /// Power limits (EnWG §14a).
    #[command(subcommand)]
    Limit(limit::Limit),
    /// Why something is as it is.
    #[command(subcommand)]
    Explain(explain::Explain),
    /// What energy costs when.
    #[command(subcommand)]
    Tariff(tariff::Tariff),
    /// Named variables of formulas and rules.
    #[command(subcommand)]
    Variable(variable::Variable),
    /// Charging points.
    #[command(subcommand)]
    Evse(evse::Evse),
    /// What is billed, and what the backend refused.
    #[command(subcommand)]
    Transaction(transaction::Transaction),
    /// Meters.
    #[command(subcommand)]
    Meter(meter::Meter),
    /// What hangs on the site's wires: scan, read, test.
    #[command(subcommand)]
    Device(device::Device),
    /// Putting the site into operation.
    #[command(subcommand)]
    Site(device::Site),
    /// Relays and contactors.
    #[command(subcommand)]
    Relay(device::Relay),
    /// The channel through the Smart Meter Gateway.
    #[command(subcommand)]
    Uplink(uplink::Uplink),
    /// The keys and certificates that this device shows to the gateway.
    #[command(subcommand)]
    Identity(identity::Identity),
    /// The device's own software.
    #[command(subcommand)]
    Update(update::Update),
    /// The evidence.
    #[command(subcommand)]
    Journal(journal::Journal),
    /// For an operator: accepts appliances that dial in, and gives a socket to each.
    ReverseListen(reverse::ReverseListen),
    /// The versions of this program and of the daemon.
    Version,
    /// Writes the completions of a shell.
    Completions(documents::Completions),
    /// Writes the manual page.
    Man(documents::Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for code in 0..=4 {
            assert!(help.contains(&format!("\n  {code}  ")), "{help}");
        }
        assert!(help.contains("LADEWART_SOCKET"));
    }
}
