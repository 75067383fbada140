//! A real TCP connection each; the far end is tokio-modbus's server, or a script that misbehaves.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_modbus::{ExceptionCode, Request, Response, server};

use super::*;
use crate::{
    device::{Catalog, bus},
    ids::MeterId,
    units::Milliamps,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Registers of an SDM630 with `amps` on each phase.
fn image(amps: f32) -> Vec<u16> {
    let mut registers = vec![0_u16; 76];
    for (at, value) in [
        (0x00, 230.0),
        (0x02, 230.0),
        (0x04, 230.0),
        (0x06, amps),
        (0x08, amps),
        (0x0A, amps),
        (0x0C, 230.0 * amps),
        (0x0E, 230.0 * amps),
        (0x10, 230.0 * amps),
        (0x34, 690.0 * amps),
        (0x46, 50.0),
    ] {
        let bits = f32::to_bits(value);
        registers[at] = (bits >> 16) as u16;
        registers[at + 1] = (bits & 0xFFFF) as u16;
    }
    registers
}

/// A meter task under test. Dropping it ends the task.
struct Meter {
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Meter {
    fn start(address: &str) -> Self {
        let pace = Pace { wait_max: Duration::from_millis(100), ..PACE };
        let wire = bus::Wire::Tcp {
            address: address.into(),
            pace: bus::Pace { answer: Duration::from_millis(400), ..bus::Pace::default() },
        };
        let (events_in, events) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let (bus, serving) = Bus::new(wire, stop.clone());
        let task = Task {
            config: config::Meter {
                id: MeterId::new("grid"),
                device: "eastron-sdm630".into(),
                at: config::Attachment::Address(address.into()),
                unit: Some(7),
                interval: Duration::from_millis(10),
                inverted: false,
            },
            reader: Reader::new(
                Catalog::load(None).unwrap().find("eastron-sdm630").unwrap(),
                bus,
                Some(7),
                PATIENCE,
            ),
            events: events_in,
            clock: Clock::system(),
            pace,
            failures: 0,
            told: None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serving);
        let token = stop.clone();
        tasks.spawn(async move {
            token.run_until_cancelled(task.poll()).await;
        });
        Self { events, stop, tasks }
    }

    async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("no event in time").expect("the task ended")
    }

    async fn problem(&mut self) -> String {
        loop {
            if let Event::MeterProblem(_, text) = self.next().await {
                return text;
            }
        }
    }

    async fn reading(&mut self) -> Reading {
        loop {
            if let Event::Reading(_, reading) = self.next().await {
                return reading;
            }
        }
    }
}

/// What the script does with a request.
#[derive(Debug, Clone)]
enum Act {
    Registers(Vec<u16>),
    Exception(u8),
    /// A byte count larger than the frame.
    CutFrame,
    /// Another transaction's answer.
    Foreign,
    Close,
    /// Answer only after somebody has connected anew.
    LateBy(Vec<u16>),
}

/// A server that follows a script, one act per request; the last one repeats.
struct Script {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    first_request: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Script {
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let first_request = Arc::new(Mutex::new(Vec::new()));
        let (count, first) = (requests.clone(), first_request.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let anew = Arc::new(Notify::new());
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                anew.notify_waiters();
                let (acts, count, first, anew) = (acts.clone(), count.clone(), first.clone(), anew.clone());
                connections.spawn(async move {
                    // A client that has gone away is part of the script.
                    let _ = serve(stream, &acts, &count, &first, &anew).await;
                });
            }
        });
        Self { address, requests, first_request, _tasks: tasks }
    }

    async fn requests(&self, at_least: usize) {
        timeout(DEADLINE, async {
            while self.requests.load(Ordering::SeqCst) < at_least {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("too few requests");
    }
}

async fn serve(
    mut stream: TcpStream,
    acts: &[Act],
    count: &AtomicUsize,
    first: &Mutex<Vec<u8>>,
    anew: &Notify,
) -> std::io::Result<()> {
    loop {
        let mut request = [0_u8; 12];
        stream.read_exact(&mut request).await?;
        let reconnected = anew.notified();
        let n = count.fetch_add(1, Ordering::SeqCst);
        if n == 0 {
            *first.lock().unwrap() = request.to_vec();
        }
        let pdu = |registers: &[u16]| {
            let mut pdu = vec![4, u8::try_from(registers.len() * 2).unwrap()];
            pdu.extend(registers.iter().flat_map(|r| r.to_be_bytes()));
            pdu
        };
        let mut id = [request[0], request[1]];
        let pdu = match acts[n.min(acts.len() - 1)].clone() {
            Act::Registers(registers) => pdu(&registers),
            Act::Exception(code) => vec![0x84, code],
            Act::CutFrame => pdu(&image(1.0))[..40].to_vec(),
            Act::Foreign => {
                id[1] ^= 0x55;
                pdu(&image(99.0))
            }
            Act::Close => return Ok(()),
            Act::LateBy(registers) => {
                reconnected.await;
                pdu(&registers)
            }
        };
        let length = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
        let mut frame = vec![id[0], id[1], 0, 0, length[0], length[1], request[6]];
        frame.extend(pdu);
        stream.write_all(&frame).await?;
    }
}

#[tokio::test]
async fn one_request_per_reading_names_unit_function_and_registers() {
    let script = Script::start(vec![Act::Registers(image(10.0))]).await;
    let mut meter = Meter::start(&script.address.to_string());
    let reading = meter.reading().await;
    assert_eq!(reading.currents.0, [Milliamps(10_000); 3]);
    assert_eq!(reading.power.0, 6900);
    // Transaction 0, protocol 0, six bytes: unit 7, function 4, from 0x0000, 76 registers.
    let request = script.first_request.lock().unwrap().clone();
    assert_eq!(request, [0, 0, 0, 0, 0, 6, 7, 4, 0, 0, 0, 76]);

    let before = script.requests.load(Ordering::SeqCst);
    let mut readings = 0;
    while readings < 10 {
        meter.reading().await;
        readings += 1;
    }
    let asked = script.requests.load(Ordering::SeqCst) - before;
    assert!((9..=11).contains(&asked), "{asked} requests for 10 readings");
}

/// The regression for `stale answers`: an answer that comes after its time must never be taken for that of the
/// next request.
#[tokio::test]
async fn an_answer_that_comes_too_late_never_counts() {
    let script = Script::start(vec![
        Act::Registers(image(10.0)),
        Act::LateBy(image(99.0)),
        Act::Registers(image(10.0)),
        Act::LateBy(image(98.0)),
        Act::Registers(image(10.0)),
    ])
    .await;
    let mut meter = Meter::start(&script.address.to_string());
    let (mut problems, mut readings) = (Vec::new(), 0);
    while script.requests.load(Ordering::SeqCst) < 12 || readings < 6 {
        match meter.next().await {
            Event::Reading(_, reading) => {
                assert_eq!(reading.currents.0, [Milliamps(10_000); 3], "a stale answer was believed");
                readings += 1;
            }
            Event::MeterProblem(_, text) => problems.push(text),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(problems.len(), 2, "{problems:?}");
    for problem in problems {
        assert_eq!(problem, "no answer within 400ms to registers from 0x0000 of unit 7");
    }
}

#[tokio::test]
async fn every_fault_is_named_and_the_next_good_answer_is_read() {
    let mut nan = image(10.0);
    nan[6] = 0x7FC0;
    let mut wild = image(10.0);
    (wild[0], wild[1]) = (0x461C, 0x4000);
    for (act, expected) in [
        (
            Act::Exception(2),
            "the device has no such registers (exception 2) for registers from 0x0000 of unit 7",
        ),
        (
            Act::Exception(11),
            "no device answers behind the Modbus gateway (exception 11) for registers from 0x0000 of unit 7",
        ),
        (Act::Registers(image(10.0)[..70].to_vec()), "short answer: 70 of 76 registers from 0x0000"),
        (
            Act::CutFrame,
            "not an answer to registers from 0x0000 of unit 7: the frame ends before its registers",
        ),
        (Act::Foreign, "not an answer to registers from 0x0000 of unit 7: "),
        (Act::Registers(nan), "current-l1 (register 0x0006) is not available: NaN"),
        (Act::Registers(wild), "voltage-l1 (register 0x0000) is 10000 V, outside 0 to 300"),
        (Act::Close, "the other side closed the connection"),
    ] {
        let script =
            Script::start(vec![Act::Registers(image(10.0)), act.clone(), Act::Registers(image(10.0))]).await;
        let mut meter = Meter::start(&script.address.to_string());
        meter.reading().await;
        let problem = meter.problem().await;
        assert!(problem.starts_with(expected), "{act:?}: {problem}");
        assert_eq!(meter.reading().await.currents.0, [Milliamps(10_000); 3], "{act:?}");
    }
}

#[tokio::test]
async fn a_lasting_fault_is_told_once() {
    let script = Script::start(vec![Act::Exception(4)]).await;
    let mut meter = Meter::start(&script.address.to_string());
    let problem = meter.problem().await;
    assert_eq!(
        problem,
        "the device reports its own failure (exception 4) for registers from 0x0000 of unit 7"
    );
    script.requests(10).await;
    meter.stop.cancel();
    assert_eq!(meter.events.recv().await, None, "told again");
}

#[tokio::test]
async fn a_meter_that_is_dead_at_the_start_is_read_once_it_lives_and_stops_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut meter = Meter::start(&address.to_string());
    let problem = meter.problem().await;
    assert!(problem.starts_with(&format!("no connection to {address}: ")), "{problem}");

    // An independent server body: the crate's own.
    let listener = TcpListener::bind(address).await.unwrap();
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        let serve = |stream, _| async move { Ok(Some((Sdm630, stream))) };
        server::tcp::Server::new(listener).serve(&serve, |_| {}).await
    });
    let first = meter.reading().await;
    let second = meter.reading().await;
    assert_eq!(second.currents.0, [Milliamps(12_000); 3]);
    assert!(second.at.mono > first.at.mono, "each reading has its own time");

    meter.stop.cancel();
    timeout(DEADLINE, meter.tasks.join_next()).await.expect("stops").unwrap().unwrap();
}

/// An SDM630 on tokio-modbus's server.
struct Sdm630;

impl server::Service for Sdm630 {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = std::future::Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Request<'static>) -> Self::Future {
        std::future::ready(match request {
            Request::ReadInputRegisters(0, 76) => Ok(Response::ReadInputRegisters(image(12.0))),
            _ => Err(ExceptionCode::IllegalDataAddress),
        })
    }
}

#[test]
fn the_wait_grows_with_jitter_and_never_beyond_its_bound() {
    for failures in 0..100 {
        for random in [0.0, 0.3, 1.0] {
            let wait = backoff(PACE, failures, random);
            assert!(wait <= PACE.wait_max && wait >= PACE.wait_min / 2, "{wait:?}");
        }
    }
    assert_eq!(backoff(PACE, 0, 1.0), Duration::from_millis(250));
    assert_eq!(backoff(PACE, 2, 1.0), Duration::from_secs(1));
    assert_eq!(backoff(PACE, 99, 1.0), Duration::from_secs(5));
    assert_eq!(backoff(PACE, 99, 0.0), Duration::from_millis(2500));
}
