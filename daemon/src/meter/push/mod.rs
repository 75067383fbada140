//! Meters that speak by themselves through an optical head: SML and IEC 62056-21.
//!
//! In: a serial port. Out: the same events as from a meter on a bus. Invariant: a reading is stamped when its telegram was
//! whole; cut, broken and doubtful telegrams never count; after a telegram that never comes the site is told what to do.

pub mod iec;
pub mod sml;
pub mod telegram;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::{
    iec::{Identification, Iec},
    sml::Sml,
    telegram::{NoReading, Telegram, Teller},
};
use super::{
    decode::{DecodeError, assemble},
    told::Told,
};
use crate::{
    clock::Clock,
    config,
    control::Events,
    device::{
        Definition,
        bus::{BusError, Port, frame::Mode, serial::Parity, tty::Tty},
        definition::{Head, Protocol},
    },
};

/// The slowest meters speak every four seconds.
const SILENCE: Duration = Duration::from_secs(10);
/// Wait before a port is opened again.
const RETRY: Duration = Duration::from_secs(2);
/// A meter that is asked answers within this (IEC 62056-21 §6.3.14: 1.5 s), its telegram within this long.
const ANSWER: Duration = Duration::from_secs(2);
const ASKED: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Port(#[from] BusError),
    #[error("{}: {why}", port.display())]
    Broken { port: PathBuf, why: String },
    #[error("{}: no telegram within {SILENCE:?}; does the optical head sit on the meter's eye, and does the meter speak by itself?", .0.display())]
    Silent(PathBuf),
    #[error("{}: the meter does not answer \"/?!\"; does the optical head sit on its eye?", .0.display())]
    Deaf(PathBuf),
    #[error(transparent)]
    NoReading(#[from] NoReading),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Failure {
    fn cause(&self) -> &'static str {
        match self {
            Self::Port(_) | Self::Broken { .. } => "port",
            Self::Silent(_) | Self::Deaf(_) => "silent",
            Self::NoReading(NoReading::PinMissing) => "pin",
            Self::NoReading(NoReading::Nothing(_)) => "nothing",
            Self::Decode(_) => "implausible",
        }
    }
}

/// Listens to a meter until `stop`.
pub async fn run(
    config: config::Meter,
    definition: Arc<Definition>,
    path: PathBuf,
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let told = Told::new(config.id.clone(), events);
    let head = definition.head.unwrap_or_default();
    let task = Task { config, definition, path, head, clock, told, teller: Teller::default() };
    stop.run_until_cancelled(task.listen()).await;
}

struct Task {
    config: config::Meter,
    definition: Arc<Definition>,
    path: PathBuf,
    head: Head,
    clock: Clock,
    told: Told,
    teller: Teller,
}

enum Parser {
    Sml(Box<Sml>),
    Iec(Iec),
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Vec<Telegram> {
        match self {
            Self::Sml(sml) => sml.push(bytes),
            Self::Iec(iec) => iec.push(bytes),
        }
    }
}

impl Task {
    /// Never ends.
    async fn listen(mut self) {
        loop {
            let outcome = if self.head.pull { self.asked().await } else { self.spoken().await };
            if let Err(failure) = outcome {
                self.told.bad(failure.cause(), failure.to_string()).await;
                sleep(RETRY).await;
            }
        }
    }

    fn port(&self, baud: u32, seven: bool) -> Port {
        Port {
            path: self.path.clone(),
            mode: Mode::Rtu,
            baud,
            parity: if seven { Parity::Even } else { Parity::None },
            data_bits: if seven { 7 } else { 8 },
            stop_bits: 1,
            answer: ANSWER,
            late: ANSWER,
        }
    }

    /// A meter that speaks by itself. Ends when the port fails or nothing comes.
    async fn spoken(&mut self) -> Result<(), Failure> {
        // Seven bits and parity arrive as eight bits; the parser takes the eighth away.
        let tty = Tty::open(&self.port(self.head.baud, false))?;
        let mut parser = match self.definition.protocol {
            Protocol::Iec => Parser::Iec(Iec::default()),
            _ => Parser::Sml(Box::default()),
        };
        let mut last = Instant::now();
        let mut buffer = [0_u8; 512];
        loop {
            let read = timeout_at(last + SILENCE, tty.read(&mut buffer)).await;
            let n = self.read(read.map_err(|_| Failure::Silent(self.path.clone()))?)?;
            for telegram in parser.push(&buffer[..n]) {
                last = Instant::now();
                if let Err(failure) = self.telegram(&telegram).await {
                    self.told.bad(failure.cause(), failure.to_string()).await;
                }
            }
        }
    }

    /// A meter that must be asked (modes A, B, C): one telegram.
    async fn asked(&mut self) -> Result<(), Failure> {
        let mut tty = Tty::open(&self.port(300, true))?;
        self.written(tty.write(b"/?!\r\n").await)?;
        let mut line = Vec::new();
        let mut buffer = [0_u8; 512];
        let mut parser = Iec::default();
        let until = Instant::now() + ANSWER + ANSWER;
        while !line.contains(&b'\n') {
            let read = timeout_at(until, tty.read(&mut buffer)).await;
            let n = self.read(read.map_err(|_| Failure::Deaf(self.path.clone()))?)?;
            line.extend(buffer[..n].iter().map(|b| b & 0x7F));
            // The head may reflect what was sent.
            if line.starts_with(b"/?!\r\n") {
                line.drain(..5);
            }
        }
        parser.push(&line);
        let speed = Identification::parse(&line).and_then(|id| Some((id.speed, id.baud()?)));
        if let Some((character, baud)) = speed {
            self.written(tty.write(&[0x06, b'0', character, b'0', b'\r', b'\n']).await)?;
            // The acknowledgement must have left at the old speed: six characters of ten bits at 300 Bd.
            sleep(Duration::from_millis(250)).await;
            drop(tty);
            tty = Tty::open(&self.port(baud, true))?;
        }
        let whole = timeout(ASKED, async {
            loop {
                let n = self.read(tty.read(&mut buffer).await)?;
                if let Some(telegram) = parser.push(&buffer[..n]).pop() {
                    return Ok::<_, Failure>(telegram);
                }
            }
        });
        let telegram = whole.await.map_err(|_| Failure::Silent(self.path.clone()))??;
        self.telegram(&telegram).await?;
        sleep(self.config.interval).await;
        Ok(())
    }

    async fn telegram(&mut self, telegram: &Telegram) -> Result<(), Failure> {
        let values = self.teller.values(telegram)?;
        let reading = assemble(&self.definition, &values, self.config.inverted, self.clock.now())?;
        self.told.good(reading).await;
        Ok(())
    }

    fn read(&self, read: std::io::Result<usize>) -> Result<usize, Failure> {
        match read {
            Ok(0) => Err(Failure::Broken { port: self.path.clone(), why: "the port is gone".to_owned() }),
            Ok(n) => Ok(n),
            Err(error) => Err(Failure::Broken { port: self.path.clone(), why: error.to_string() }),
        }
    }

    fn written(&self, written: std::io::Result<()>) -> Result<(), Failure> {
        written.map_err(|error| Failure::Broken { port: self.path.clone(), why: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
