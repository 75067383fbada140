//! Buses: one task each, one request at a time, setpoints before readings.
//!
//! In: requests by [`Bus::call`], with a deadline. Out: the registers of their answers, or why there are none.
//! Invariant: an answer reaches only the request that it belongs to. What comes after its time is waited out (serial) or
//! has nowhere to arrive (TCP: the connection is dropped). A request whose deadline is over is never sent.
//!
//! ```text
//!  queue: setpoints ─┐                    ┌ answer, exception ─→ caller
//!         readings ──┴→ rest → send → wait ┤
//!                        ↑                └ nothing, foreign, corrupt ─→ caller, and the bus rests until
//!                        └───────────────────────────────────────────── the latest answer would be over
//! ```

pub mod frame;
pub mod pdu;
pub mod serial;
mod tcp;
pub mod tty;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::pdu::meaning;
pub use self::{pdu::Request, serial::Port};
use crate::config::{Attachment, Config};

/// How many requests may wait; then those who ask wait.
const QUEUE: usize = 64;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The connection was not made.
    #[error("no connection to {address}: {why}")]
    Connect {
        /// Host and port.
        address: String,
        /// The system's kind of error.
        kind: io::ErrorKind,
        /// The system's words.
        why: String,
    },
    /// The other side does not answer the connection's first packet.
    #[error("no connection to {address} within {within:?}")]
    ConnectTimeout {
        /// Host and port.
        address: String,
        /// How long it was tried.
        within: Duration,
    },
    /// The serial port cannot be had.
    #[error("{}: {why}", port.display())]
    Port {
        /// Device file.
        port: PathBuf,
        /// What is wrong, and what would help.
        why: String,
    },
    /// The request went out, nothing came back.
    #[error("no answer within {within:?} to registers from 0x{start:04X} of unit {unit}")]
    Timeout {
        /// How long it was waited for.
        within: Duration,
        /// First register.
        start: u16,
        /// Unit.
        unit: u8,
    },
    /// The device says no.
    #[error("{} (exception {code}) for registers from 0x{start:04X} of unit {unit}", meaning(*code))]
    Exception {
        /// MODBUS Application Protocol V1.1b3 §7.
        code: u8,
        /// First register.
        start: u16,
        /// Unit.
        unit: u8,
    },
    /// What came back is not the answer to what was asked.
    #[error("not an answer to registers from 0x{start:04X} of unit {unit}: {why}")]
    Foreign {
        /// First register.
        start: u16,
        /// Unit.
        unit: u8,
        /// In words.
        why: String,
    },
    /// An answer with another number of registers.
    #[error("short answer: {got} of {wanted} registers from 0x{start:04X}")]
    Length {
        /// First register.
        start: u16,
        /// Asked for.
        wanted: u16,
        /// Answered.
        got: usize,
    },
    /// Somebody else talks on the bus.
    #[error("the bus is never silent: another master talks on it, or the wiring picks up noise")]
    Occupied,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other side ended the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// Others were served until the deadline.
    #[error("the bus was busy for {0:?}")]
    Busy(Duration),
    /// The bus has no task any more: the daemon is going down.
    #[error("the bus is gone")]
    Gone,
}

impl BusError {
    /// Whether the device itself answered.
    #[must_use]
    pub const fn answered(&self) -> bool {
        matches!(self, Self::Exception { .. })
    }

    /// Whether the connection must be made anew first.
    #[must_use]
    pub const fn lost(&self) -> bool {
        !matches!(self, Self::Exception { .. } | Self::Busy(_))
    }

    /// What stays the same while the values in the message change: it is told once.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Connect { kind, .. } => format!("connect {kind:?}"),
            Self::ConnectTimeout { .. } => "connect timeout".to_owned(),
            Self::Port { .. } => "port".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Exception { code, start, .. } => format!("exception {code} {start}"),
            Self::Foreign { .. } => "foreign".to_owned(),
            Self::Length { .. } => "short".to_owned(),
            Self::Occupied => "occupied".to_owned(),
            Self::Broken(_) | Self::Closed => "broken".to_owned(),
            Self::Busy(_) => "busy".to_owned(),
            Self::Gone => "gone".to_owned(),
        }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What limits power.
    Setpoint,
    /// Everything else.
    Reading,
}

/// What is asked of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Modbus unit identifier.
    pub unit: u8,
    /// What.
    pub request: Request,
    /// Who goes first.
    pub class: Class,
    /// Least silence on the bus before it, for devices that need one.
    pub rest: Duration,
    /// From now on; a request that has not been sent by then is not sent.
    pub patience: Duration,
}

struct Job {
    ask: Ask,
    until: Instant,
    reply: oneshot::Sender<Result<Vec<u16>, BusError>>,
}

/// The way to a bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ask.fmt(f)
    }
}

/// Times of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// For TCP's handshake.
    pub connect: Duration,
    /// For one answer. Below the usual interval of 1 s, so that one lost answer costs one reading.
    pub answer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), answer: Duration::from_millis(800) }
    }
}

/// What a bus is made of.
#[derive(Debug, Clone)]
pub enum Wire {
    /// A Modbus TCP server.
    Tcp {
        /// Host and port.
        address: String,
        /// Times.
        pace: Pace,
    },
    /// A serial line.
    Serial(Port),
}

impl Bus {
    /// A bus, and its task, which serves it until `stop` or until nobody holds the [`Bus`] any more.
    pub fn new(wire: Wire, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let task = async move {
            stop.run_until_cancelled(serve(wire, waiting)).await;
        };
        (Self { jobs }, task)
    }

    /// Asks, and waits for the answer.
    pub async fn call(&self, ask: Ask) -> Result<Vec<u16>, BusError> {
        let (reply, answer) = oneshot::channel();
        let until = Instant::now() + ask.patience;
        self.jobs.send(Job { ask, until, reply }).await.map_err(|_| BusError::Gone)?;
        answer.await.unwrap_or(Err(BusError::Gone))
    }
}

/// The buses of a site: one per serial line, one per Modbus TCP server, however many devices are behind it.
#[derive(Debug, Clone, Default)]
pub struct Buses {
    serial: Vec<Bus>,
    tcp: BTreeMap<String, Bus>,
}

impl Buses {
    /// Makes what the configuration names; hands each bus's task to `spawn`.
    pub fn new<F>(config: &Config, stop: &CancellationToken, mut spawn: F) -> Self
    where
        F: FnMut(BoxFuture<'static, ()>),
    {
        let mut buses = Self::default();
        for bus in &config.buses {
            let (bus, task) = Bus::new(Wire::Serial(bus.port.clone()), stop.clone());
            spawn(Box::pin(task));
            buses.serial.push(bus);
        }
        let wallboxes = config.evses.iter().filter_map(|e| e.device.as_ref()).map(|d| &d.at);
        let told = config.devices.iter().filter_map(|d| d.setpoint.as_ref()).map(|s| &s.at);
        for at in config.meters.iter().map(|m| &m.at).chain(wallboxes).chain(told) {
            let Attachment::Address(address) = at else { continue };
            if buses.tcp.contains_key(address) {
                continue;
            }
            let wire = Wire::Tcp { address: address.clone(), pace: Pace::default() };
            let (bus, task) = Bus::new(wire, stop.clone());
            spawn(Box::pin(task));
            buses.tcp.insert(address.clone(), bus);
        }
        buses
    }

    /// The Modbus TCP servers that are named.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.tcp.keys().map(String::as_str)
    }

    /// The bus of a device of the same configuration.
    #[must_use]
    pub fn at(&self, at: &Attachment) -> Option<Bus> {
        match at {
            Attachment::Address(address) => self.tcp.get(address).cloned(),
            Attachment::Bus(index) => self.serial.get(*index).cloned(),
            Attachment::Port(_) | Attachment::Http(_) | Attachment::Topic { .. } => None,
        }
    }
}

async fn serve(wire: Wire, mut waiting: mpsc::Receiver<Job>) {
    let mut body = match wire {
        Wire::Tcp { address, pace } => Body::Tcp(tcp::Client::new(address, pace)),
        Wire::Serial(port) => Body::Serial(Box::new(serial::Master::new(port))),
    };
    let mut queue = Queue::default();
    loop {
        if queue.is_empty() {
            match waiting.recv().await {
                Some(job) => queue.push(job),
                None => return,
            }
        }
        // Everybody who waits is known before one is chosen.
        while let Ok(job) = waiting.try_recv() {
            queue.push(job);
        }
        let Some(job) = queue.pop() else { continue };
        if job.reply.is_closed() {
            continue;
        }
        let outcome = if Instant::now() >= job.until {
            Err(BusError::Busy(job.ask.patience))
        } else {
            body.exchange(&job.ask).await
        };
        // Whoever asked may have gone.
        let _ = job.reply.send(outcome);
    }
}

enum Body {
    Tcp(tcp::Client),
    Serial(Box<serial::Master>),
}

impl Body {
    async fn exchange(&mut self, ask: &Ask) -> Result<Vec<u16>, BusError> {
        match self {
            Self::Tcp(client) => client.exchange(ask).await,
            Self::Serial(master) => master.exchange(ask).await,
        }
    }
}

/// Who waits, in the order of service: setpoints first, each class as it came.
#[derive(Default)]
struct Queue {
    setpoints: VecDeque<Job>,
    readings: VecDeque<Job>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.setpoints.is_empty() && self.readings.is_empty()
    }

    fn push(&mut self, job: Job) {
        match job.ask.class {
            Class::Setpoint => self.setpoints.push_back(job),
            Class::Reading => self.readings.push_back(job),
        }
    }

    fn pop(&mut self) -> Option<Job> {
        self.setpoints.pop_front().or_else(|| self.readings.pop_front())
    }
}

#[cfg(test)]
mod tests;
