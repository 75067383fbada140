//! An Eastron SDM630 behind Modbus TCP: function code 4, 32-bit floats with the high word first.
//!
//! In: the currents of the grid connection, asked for at each reading. Out: registers as the manual lists them.
//! Invariant: all registers of one answer belong to one instant.

use std::{
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_modbus::{
    ExceptionCode, Request, Response, SlaveRequest,
    server::{Service, tcp::Server},
};

use crate::log::{Log, lock};

/// Registers served: up to the export of phase 3 and some more.
const REGISTERS: usize = 0x200;

/// How the meter misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Not at all.
    #[default]
    None,
    /// Answers with exception 4, server device failure.
    Exception,
    /// Answers with one register less than asked.
    Short,
    /// Does not answer.
    Silent,
    /// Answers with the registers of the moment the fault began.
    Frozen,
    /// Answers with NaN in the currents.
    NotANumber,
}

/// What flows through the grid connection: amperes per phase. Positive: drawn from the grid.
pub type Source = Arc<dyn Fn() -> [f64; 3] + Send + Sync>;

struct Shared {
    source: Source,
    volts: Mutex<[f64; 3]>,
    fault: Mutex<Fault>,
    image: Mutex<Image>,
    log: Log<Fault>,
}

struct Image {
    registers: Vec<u16>,
    at: Instant,
    import_wh: f64,
    export_wh: f64,
}

/// A running meter; ends when dropped.
pub struct Meter {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Meter {
    /// Binds a free port of the loopback interface and measures `source`.
    pub async fn start(source: Source) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            source,
            volts: Mutex::new([230.0; 3]),
            fault: Mutex::default(),
            image: Mutex::new(Image {
                registers: vec![0; REGISTERS],
                at: Instant::now(),
                import_wh: 12_345_678.0,
                export_wh: 0.0,
            }),
            log: Log::default(),
        });
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&shared);
        tasks.spawn(async move {
            let connect = |stream: tokio::net::TcpStream, _| {
                let shared = Arc::clone(&served);
                async move {
                    stream.set_nodelay(true)?;
                    Ok(Some((Registers(shared), stream)))
                }
            };
            // A broken client ends its own connection only.
            let _ = Server::new(listener).serve(&connect, |_| {}).await;
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets how it misbehaves from now on.
    pub fn fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Sets the voltages, in volts.
    pub fn volts(&self, volts: [f64; 3]) {
        *lock(&self.shared.volts) = volts;
    }

    /// One entry per request, with the fault that held.
    #[must_use]
    pub fn log(&self) -> &Log<Fault> {
        &self.shared.log
    }
}

struct Registers(Arc<Shared>);

impl Service for Registers {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let fault = *lock(&self.0.fault);
        self.0.log.push(fault);
        let Request::ReadInputRegisters(from, count) = request.request else {
            return ready(Err(ExceptionCode::IllegalFunction));
        };
        let (from, count) = (usize::from(from), usize::from(count));
        if from + count > REGISTERS || !(1..=125).contains(&count) {
            return ready(Err(ExceptionCode::IllegalDataAddress));
        }
        let words = self.0.registers(fault)[from..from + count].to_vec();
        ready(match fault {
            Fault::Silent => Ok(None),
            Fault::Exception => Err(ExceptionCode::ServerDeviceFailure),
            Fault::Short => Ok(Some(Response::ReadInputRegisters(words[..count - 1].to_vec()))),
            _ => Ok(Some(Response::ReadInputRegisters(words))),
        })
    }
}

impl Shared {
    fn registers(&self, fault: Fault) -> Vec<u16> {
        let mut image = lock(&self.image);
        if fault == Fault::Frozen {
            return image.registers.clone();
        }
        let (amps, volts) = ((self.source)(), *lock(&self.volts));
        let watts: [f64; 3] = std::array::from_fn(|i| amps[i] * volts[i]);
        let total: f64 = watts.iter().sum();
        let now = Instant::now();
        let hours = now.duration_since(image.at).as_secs_f64() / 3600.0;
        image.at = now;
        image.import_wh += total.max(0.0) * hours;
        image.export_wh += (-total).max(0.0) * hours;
        let (import, export) = (image.import_wh / 1000.0, image.export_wh / 1000.0);
        let mut put = |register: usize, value: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "the meter has 32-bit floats")]
            let bits = (value as f32).to_bits();
            image.registers[register] = (bits >> 16) as u16;
            image.registers[register + 1] = (bits & 0xffff) as u16;
        };
        for i in 0..3 {
            put(2 * i, volts[i]);
            // The SDM630 gives magnitudes; the direction is in the power.
            put(0x06 + 2 * i, if fault == Fault::NotANumber { f64::NAN } else { amps[i].abs() });
            put(0x0c + 2 * i, watts[i]);
        }
        put(0x34, total);
        put(0x46, 50.0);
        put(0x48, import);
        put(0x4a, export);
        put(0x156, import + export);
        image.registers.clone()
    }
}
