//! The master of one serial line.
//!
//! In: requests. Out: registers, or why not. Invariant: what comes after its time is never taken for the next answer:
//! after a failure the line is held until the latest answer would be over, what came meanwhile is thrown away, and a
//! request begins only after silence.
//!
//! The line's direction (RS-485) is the adapter's or the kernel's matter: for a UART the device tree's property
//! `linux,rs485-enabled-at-boot-time`. The kernel's call for it (TIOCSRS485) has no safe binding.

use std::{io, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Ask, BusError,
    frame::{Mode, Verdict},
    pdu::Mismatch,
    tty::Tty,
};

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// None.
    None,
    /// Even: what the specification asks for.
    Even,
    /// Odd.
    Odd,
}

/// A serial line and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Device file.
    pub path: PathBuf,
    /// RTU or ASCII.
    pub mode: Mode,
    /// Bits per second.
    pub baud: u32,
    /// Parity.
    pub parity: Parity,
    /// 7 or 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
    /// For an answer to begin.
    pub answer: Duration,
    /// After this, no device on this line answers any more: the line is held so long after a failure.
    pub late: Duration,
}

/// Most of the time that silence is waited for before the line counts as occupied.
const OCCUPIED: Duration = Duration::from_secs(2);
/// The system may hand out bytes so much later than they came.
const SCHEDULING: Duration = Duration::from_millis(20);

impl Port {
    /// Time of `characters` on the line (V1.02 §2.5.1: eleven bits each with parity).
    #[must_use]
    pub fn time_of(&self, characters: usize) -> Duration {
        let parity = u64::from(self.parity != Parity::None);
        let bits = 1 + u64::from(self.data_bits) + parity + u64::from(self.stop_bits);
        let bits = bits * u64::try_from(characters).unwrap_or(u64::MAX / 16);
        Duration::from_nanos(bits.saturating_mul(1_000_000_000) / u64::from(self.baud.max(1)))
    }

    /// Silence between two frames: 3.5 characters, above 19 200 Bd 1.75 ms (V1.02 §2.5.1.1).
    #[must_use]
    pub fn silence(&self) -> Duration {
        if self.baud > 19_200 { Duration::from_micros(1750) } else { self.time_of(7) / 2 }
    }
}

pub(super) struct Master {
    port: Port,
    stream: Option<Tty>,
    /// When the line was last known to carry something.
    last: Instant,
    /// Nothing is sent before.
    held: Instant,
}

impl Master {
    pub(super) fn new(port: Port) -> Self {
        // Somebody may be in the middle of an answer to a master that has just gone.
        let now = Instant::now();
        Self { port, stream: None, last: now, held: now }
    }

    pub(super) async fn exchange(&mut self, ask: &Ask) -> Result<Vec<u16>, BusError> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Tty::open(&self.port)?,
        };
        let outcome = self.on(&stream, ask).await;
        if !matches!(outcome, Err(BusError::Broken(_) | BusError::Closed)) {
            self.stream = Some(stream);
        }
        outcome
    }

    async fn on(&mut self, stream: &Tty, ask: &Ask) -> Result<Vec<u16>, BusError> {
        let (unit, request, port) = (ask.unit, &ask.request, &self.port);
        let (start, mode) = (request.start(), port.mode);
        sleep_until(self.held).await;
        self.last = quiet(stream, port, self.last, port.silence().max(ask.rest)).await?;

        let frame = mode.encode(unit, request);
        broken(stream.write(&frame).await)?;
        let sent = Instant::now() + port.time_of(frame.len());
        // The clock of the answer starts when the last bit has left.
        let wanted = mode.answer_length(request);
        let begins = sent + port.answer + SCHEDULING;
        let ends = begins + port.time_of(wanted);
        let mut bytes = Vec::with_capacity(wanted + 1);
        let mut buffer = [0_u8; 600];
        let outcome = loop {
            let until = if bytes.is_empty() { begins } else { ends };
            match timeout_at(until, stream.read(&mut buffer)).await {
                Ok(read) => {
                    let n = broken(read)?;
                    if n == 0 {
                        return Err(BusError::Closed);
                    }
                    self.last = Instant::now();
                    bytes.extend_from_slice(&buffer[..n]);
                }
                Err(_) if bytes.is_empty() => {
                    break Err(BusError::Timeout { within: self.port.answer, start, unit });
                }
                Err(_) => {
                    let why = format!("it ends after {} of {wanted} bytes", bytes.len());
                    break Err(BusError::Foreign { start, unit, why });
                }
            }
            match mode.judge(unit, request, &bytes) {
                Verdict::More => {}
                Verdict::Answer(registers) => break Ok(registers),
                Verdict::Wrong(Mismatch::Exception(code)) => {
                    break Err(BusError::Exception { code, start, unit });
                }
                Verdict::Wrong(why) => break Err(BusError::Foreign { start, unit, why: why.to_string() }),
            }
        };
        match outcome {
            // The frame ends where silence begins: what follows at once belongs to it, and then it is not an answer.
            Ok(registers) => {
                match timeout_at(self.last + self.port.silence(), stream.read(&mut buffer)).await {
                    Err(_) => Ok(registers),
                    Ok(read) => {
                        broken(read)?;
                        self.last = Instant::now();
                        self.held = sent + self.port.late;
                        let why = Mismatch::Frame("more bytes follow the answer").to_string();
                        Err(BusError::Foreign { start, unit, why })
                    }
                }
            }
            Err(error) => {
                if !error.answered() {
                    // Until then an answer to this request may still come.
                    self.held = sent + self.port.late + self.port.time_of(wanted);
                }
                Err(error)
            }
        }
    }
}

/// Waits until the line has been silent for `silence`; throws away what comes meanwhile. Returns when it last carried
/// something.
async fn quiet(stream: &Tty, port: &Port, mut last: Instant, silence: Duration) -> Result<Instant, BusError> {
    let give_up = Instant::now() + OCCUPIED.max(silence * 2);
    let mut buffer = [0_u8; 600];
    loop {
        broken(stream.flush())?;
        match timeout_at(last + silence, stream.read(&mut buffer)).await {
            Err(_) => {
                broken(stream.flush())?;
                return Ok(last);
            }
            Ok(Ok(0)) => return Err(BusError::Closed),
            Ok(Ok(n)) => {
                tracing::debug!(port = %port.path.display(), bytes = n, "unasked bytes on the bus");
                last = Instant::now();
            }
            Ok(Err(error)) => return Err(BusError::Broken(error.to_string())),
        }
        if last > give_up {
            return Err(BusError::Occupied);
        }
    }
}

fn broken<T>(outcome: io::Result<T>) -> Result<T, BusError> {
    outcome.map_err(|error| BusError::Broken(error.to_string()))
}
