//! A serial device that answers late or wrongly every fifth time: what a master believes.
//!
//! The same device serves our master and, for comparison, the RTU client of tokio-modbus as its documentation shows it.
//! Counts go to `target/report/serial_faults.json`. `LADEWART_FACTOR=10` asks ten times as often.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    thread,
    time::Duration,
};

use ladewartd::device::{
    bus::{Ask, Bus, BusError, Class, Port, Request, Wire, frame, serial::Parity},
    definition::Function,
};
use nix::{pty::openpty, unistd::ttyname};
use tokio::{net::UnixStream, task::JoinSet, time::timeout};
use tokio_modbus::{
    Slave,
    client::{Reader as _, rtu},
};
use tokio_util::sync::CancellationToken;

const ANSWER: Duration = Duration::from_millis(40);
const LATE: Duration = Duration::from_millis(160);
const LINES: u64 = 8;

/// What each register holds: tells which question an answer belongs to.
const fn content(register: u16) -> u16 {
    register ^ 0x5AA5
}

/// Answers reads of two registers; every fifth answer is late or wrong.
fn device(mut line: impl Read + Write, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut request = [0_u8; 8];
    while line.read_exact(&mut request).is_ok() {
        let start = u16::from_be_bytes([request[2], request[3]]);
        let mut frame = vec![request[0], request[1], 4];
        frame.extend(content(start).to_be_bytes());
        frame.extend(content(start.wrapping_add(1)).to_be_bytes());
        frame.extend(frame::crc16(&frame).to_le_bytes());
        if random.u64(..5) == 0 {
            match random.u64(..6) {
                // Late: after the master has given up, before the latest answer is over.
                0 | 1 => thread::sleep(ANSWER + Duration::from_millis(35 + random.u64(..60))),
                2 => {
                    let at = usize::try_from(random.u64(..9)).unwrap_or(0);
                    frame[at] ^= 1 << random.u64(..8);
                }
                3 => frame.truncate(usize::try_from(1 + random.u64(..8)).unwrap_or(1)),
                4 => frame.extend([0xFF, 0x00]),
                // A whole, valid answer of another device.
                _ => {
                    frame[0] ^= 3;
                    frame.truncate(7);
                    frame.extend(frame::crc16(&frame).to_le_bytes());
                }
            }
        }
        if line.write_all(&frame).is_err() {
            return;
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    asked: u64,
    right: u64,
    refused: u64,
    wrong: u64,
}

impl Counts {
    fn add(&mut self, start: u16, answer: Option<&[u16]>) {
        self.asked += 1;
        match answer {
            None => self.refused += 1,
            Some(registers) if registers == [content(start), content(start.wrapping_add(1))] => {
                self.right += 1;
            }
            Some(_) => self.wrong += 1,
        }
    }
}

async fn ours(seed: u64, requests: u64) -> Counts {
    let pair = openpty(None, None).unwrap();
    let path = ttyname(pair.slave.as_fd()).unwrap();
    let far = File::from(pair.master);
    thread::spawn(move || device(Both(far), seed));
    let port = Port {
        path,
        mode: frame::Mode::Rtu,
        baud: 115_200,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
        answer: ANSWER,
        late: LATE,
    };
    let (bus, task) = Bus::new(Wire::Serial(port), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    let mut random = fastrand::Rng::with_seed(seed + 1000);
    let mut counts = Counts::default();
    for _ in 0..requests {
        let start = u16::try_from(random.u64(..60_000)).unwrap();
        let ask = Ask {
            unit: 1,
            request: Request::Read { function: Function::Holding, start, count: 2 },
            class: Class::Reading,
            rest: Duration::ZERO,
            patience: Duration::from_secs(60),
        };
        let outcome = bus.call(ask).await;
        assert!(
            matches!(&outcome, Ok(_) | Err(BusError::Timeout { .. } | BusError::Foreign { .. })),
            "{outcome:?}"
        );
        counts.add(start, outcome.ok().as_deref());
    }
    counts
}

async fn theirs(seed: u64, requests: u64) -> Counts {
    let (near, far) = UnixStream::pair().unwrap();
    let far = far.into_std().unwrap();
    far.set_nonblocking(false).unwrap();
    thread::spawn(move || device(far, seed));
    let mut client = rtu::attach_slave(near, Slave(1));
    let mut random = fastrand::Rng::with_seed(seed + 1000);
    let mut counts = Counts::default();
    for _ in 0..requests {
        let start = u16::try_from(random.u64(..60_000)).unwrap();
        let outcome = timeout(ANSWER, client.read_holding_registers(start, 2)).await;
        counts.add(start, outcome.ok().and_then(Result::ok).and_then(Result::ok).as_deref());
    }
    counts
}

/// A pseudo terminal's far end, read and written.
struct Both(File);

impl Read for Both {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wrong_is_believed_whatever_the_line_does() {
    let factor: u64 = std::env::var("LADEWART_FACTOR").ok().and_then(|f| f.parse().ok()).unwrap_or(1);
    let requests = 10_000 * factor / LINES;
    let mut runs = JoinSet::new();
    for line in 0..LINES {
        runs.spawn(async move { (true, ours(line, requests).await) });
        runs.spawn(async move { (false, theirs(line, requests / 10).await) });
    }
    let (mut own, mut crates) = (Counts::default(), Counts::default());
    for (is_own, counts) in runs.join_all().await {
        let sum = if is_own { &mut own } else { &mut crates };
        sum.asked += counts.asked;
        sum.right += counts.right;
        sum.refused += counts.refused;
        sum.wrong += counts.wrong;
    }
    let row = |who: &str, c: Counts| {
        format!(
            "{{\"master\": \"{who}\", \"asked\": {}, \"right\": {}, \"refused\": {}, \"wrong\": {}}}",
            c.asked, c.right, c.refused, c.wrong
        )
    };
    let rows = [row("ladewartd", own), row("tokio-modbus 0.17 RTU client", crates)];
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    fs::create_dir_all(&report).unwrap();
    let text = format!(
        "{{\"name\": \"serial_faults\", \"unit\": \"answers\", \"peer\": \"tokio-modbus\", \"rows\": [{}]}}\n",
        rows.join(", ")
    );
    fs::write(report.join("serial_faults.json"), &text).unwrap();
    assert_eq!(own.wrong, 0, "{text}");
    assert_eq!(own.asked, requests * LINES);
    assert!(own.right * 10 >= own.asked * 7, "four of five answers are good: {text}");
    assert!(crates.wrong > 0, "the comparison shows nothing: {text}");
}
