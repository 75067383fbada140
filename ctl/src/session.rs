//! One run of the program: output, connection, and which command it is.

use std::{path::PathBuf, time::Duration};

use jiff::tz::TimeZone;
use prost::Message;
use tonic::{Response, Status, transport::Channel};

use crate::{
    args::{Cli, Command, Format},
    clock, connect,
    failure::Failure,
    json,
    output::Output,
    status, version,
    words::Style,
};

/// How long an answer may take that needs no work.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Session {
    socket: PathBuf,
    format: Option<Format>,
    pub(crate) output: Output,
}

/// Carries out the command.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let mut session = Session { socket: cli.socket, format: cli.output, output: Output::new() };
    match cli.command {
        Command::Status => status::run(&mut session).await,
        Command::Watch(watch) => watch.run(&mut session).await,
        Command::Limit(limit) => limit.run(&mut session).await,
        Command::Explain(explain) => explain.run(&mut session).await,
        Command::Tariff(tariff) => tariff.run(&mut session).await,
        Command::Variable(variable) => variable.run(&mut session).await,
        Command::Evse(evse) => evse.run(&mut session).await,
        Command::Transaction(transaction) => transaction.run(&mut session).await,
        Command::Meter(meter) => meter.run(&mut session).await,
        Command::Device(device) => device.run(&mut session).await,
        Command::Site(site) => site.run(&mut session).await,
        Command::Relay(relay) => relay.run(&mut session).await,
        Command::Uplink(uplink) => uplink.run(&mut session).await,
        Command::Identity(identity) => identity.run(&mut session).await,
        Command::Update(update) => update.run(&mut session).await,
        Command::Journal(journal) => journal.run(&mut session).await,
        Command::ReverseListen(listen) => listen.run(&mut session).await,
        Command::Version => version::run(&mut session).await,
        Command::Completions(completions) => completions.run(&mut session).await,
        Command::Man(man) => man.run(&mut session).await,
    }
}

impl Session {
    /// The way to the daemon.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        self.within(connect::connect(&self.socket)).await?
    }

    /// An answer, awaited for a reasonable time.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        Ok(self.within(answer).await??.into_inner())
    }

    async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::time::timeout(PATIENCE, future).await.map_err(|_| {
            Failure::Unreachable(format!(
                "the daemon at {} took the call but did not answer within {} s; its log says what it waits for",
                self.socket.display(),
                PATIENCE.as_secs()
            ))
        })
    }

    /// Whether JSON is wanted; `otherwise` without a word on the command line.
    pub(crate) fn json_or(&self, otherwise: bool) -> bool {
        self.format.map_or(otherwise, |format| format == Format::Json)
    }

    /// How tables are written now.
    pub(crate) fn style(&self) -> Style {
        Style { zone: TimeZone::system(), now: clock::now(), terminal: self.output.terminal() }
    }

    /// One answer: as JSON, or in words.
    pub(crate) async fn show(
        &mut self,
        name: &str,
        message: &impl Message,
        words: impl FnOnce(&Style) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json_or(false) { json::pretty(name, message)? } else { words(&self.style()) };
        self.output.line(&text).await
    }
}
