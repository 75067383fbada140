//! Every shipped definition against pymodbus: each quantity as written into its registers, each wallbox driven whole.
//!
//! The peer fills registers from the definition files by an encoder of its own (`tests/devices/peer.py`). Modbus TCP for
//! all; RTU and ASCII over pseudo terminals. `tests/run devices` runs it; the table goes to `target/report/devices.json`.

#![expect(clippy::print_stdout, reason = "the table is for people")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ladewartd::{
    clock::Clock,
    config,
    device::{
        Catalog, Definition, Reader,
        bus::{Bus, Pace, Port, Wire, frame::Mode, serial::Parity},
        definition::{DeviceKind, Protocol},
    },
    evse::driver,
    ids::{EvseId, Identity},
    meter,
    plan::Setpoint,
    site::{
        Event,
        event::{ConnectorStatus, EvseEvent},
    },
    time::Mono,
    units::{Milliamps, Wiring},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What pymodbus serves, one per line of its output.
struct Peer {
    definition: Arc<Definition>,
    transport: String,
    at: String,
    expected: BTreeMap<String, f64>,
}

impl Peer {
    fn wire(&self) -> Wire {
        let mode = match self.transport.as_str() {
            "tcp" => {
                let pace = Pace { answer: Duration::from_secs(5), ..Pace::default() };
                return Wire::Tcp { address: self.at.clone(), pace };
            }
            "ascii" => Mode::Ascii,
            _ => Mode::Rtu,
        };
        Wire::Serial(Port {
            path: PathBuf::from(&self.at),
            mode,
            baud: 115_200,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 2,
            answer: Duration::from_secs(5),
            late: Duration::from_secs(6),
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pymodbus; tests/run devices runs it"]
async fn every_shipped_definition_against_pymodbus() {
    let python = std::env::var("LADEWART_PYTHON").expect("LADEWART_PYTHON names a Python with pymodbus");
    let catalog = Catalog::load(None).unwrap();
    let mut wishes = Vec::new();
    for definition in catalog.iter().filter(|d| d.protocol == Protocol::Modbus) {
        for transport in ["tcp", "rtu", "ascii"] {
            let path = root().join("daemon/devices").join(format!("{}.toml", definition.name));
            wishes.push(serde_json::json!({ "definition": path, "transport": transport }));
        }
    }
    let mut program = Command::new(python)
        .arg(root().join("tests/devices/peer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    let mut input = program.stdin.take().unwrap();
    writeln!(input, "{}", serde_json::to_string(&wishes).unwrap()).unwrap();
    let mut output = BufReader::new(program.stdout.take().unwrap()).lines();

    let mut runs = JoinSet::new();
    for _ in &wishes {
        let told: Value = serde_json::from_str(&output.next().expect("the peer ended").unwrap()).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let expected = told["expected"].as_object().unwrap();
        let peer = Peer {
            definition: catalog.find(&text("name")).unwrap(),
            transport: text("transport"),
            at: text("at"),
            expected: expected.iter().map(|(q, v)| (q.clone(), v.as_f64().unwrap())).collect(),
        };
        runs.spawn(timeout(DEADLINE, check(peer)));
    }
    let mut table: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut failures = Vec::new();
    while let Some(ended) = runs.join_next().await {
        let (name, transport, outcome) = ended.unwrap().expect("a device is not done in time");
        let shown = match outcome {
            Ok(fields) => fields,
            Err(why) => {
                failures.push(format!("{name} over {transport}: {why}"));
                "FAILED".to_owned()
            }
        };
        table.entry(name).or_default().insert(transport, shown);
    }
    drop(input);
    let _ = program.wait();
    let mut rows = Vec::new();
    for (name, by) in &table {
        let cell = |t: &str| by.get(t).map_or("-", String::as_str);
        println!("   {name:28} tcp {:18} rtu {:18} ascii {:18}", cell("tcp"), cell("rtu"), cell("ascii"));
        let mut row = format!("{{\"definition\": \"{name}\"");
        for (transport, outcome) in by {
            let _ = write!(row, ", \"{transport}\": \"{outcome}\"");
        }
        rows.push(row + "}");
    }
    let report = root().join("target/report");
    fs::create_dir_all(&report).unwrap();
    let text = format!(
        "{{\"name\": \"devices\", \"unit\": \"fields\", \"peer\": \"pymodbus 3.16.1\", \"rows\": [{}]}}\n",
        rows.join(", ")
    );
    fs::write(report.join("devices.json"), text).unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

async fn check(peer: Peer) -> (String, String, Result<String, String>) {
    let (name, transport) = (peer.definition.name.clone(), peer.transport.clone());
    let stop = CancellationToken::new();
    let (bus, task) = Bus::new(peer.wire(), stop.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    let outcome = async {
        let fields = read(&peer, bus.clone()).await?;
        if peer.definition.kind == DeviceKind::Wallbox {
            drive(&peer, bus).await?;
            return Ok(format!("{fields} fields, driven"));
        }
        Ok(format!("{fields} fields"))
    };
    let outcome = outcome.await;
    stop.cancel();
    (name, transport, outcome)
}

/// Every quantity, as it was written.
async fn read(peer: &Peer, bus: Bus) -> Result<usize, String> {
    let mut reader = Reader::new(Arc::clone(&peer.definition), bus, None, DEADLINE);
    let registers = reader.blocks().await.map_err(|e| e.to_string())?;
    let values = meter::values(&peer.definition, &registers).map_err(|e| e.to_string())?;
    for (quantity, value) in &values {
        let value = value.as_ref().map_err(ToString::to_string)?;
        let expected = peer.expected.get(quantity.name()).ok_or_else(|| format!("{quantity} is new"))?;
        // A single carries 24 bits.
        if (value - expected).abs() > expected.abs() * 1e-6 + 1e-9 {
            return Err(format!("{quantity} is {value}, {expected} was written"));
        }
    }
    if values.len() == peer.expected.len() {
        return Ok(values.len());
    }
    Err(format!("{} of {} quantities", values.len(), peer.expected.len()))
}

/// Taken on, driven to 10 A and to nothing, each read back; its state and draw told.
async fn drive(peer: &Peer, bus: Bus) -> Result<(), String> {
    let clock = Clock::system();
    let (setpoint, setpoints) = watch::channel(None);
    let (_released, permission) = watch::channel(true);
    let (_fresh, plans) = watch::channel(Mono(Duration::from_secs(1 << 20)));
    let (events_in, mut events) = mpsc::channel(256);
    let device = config::EvseDevice {
        definition: peer.definition.name.clone(),
        at: config::Attachment::Address(peer.at.clone()),
        unit: None,
        interval: Duration::from_millis(500),
        failsafe: Some(Milliamps::amps(6)),
        card: None,
    };
    let parts = driver::Parts {
        evse: config::Evse {
            id: EvseId::new("e"),
            identity: Identity::new("e"),
            node: 0,
            wiring: Wiring::L123,
            max: Milliamps::amps(16),
            min: Milliamps::amps(6),
            step: Milliamps::amps(1),
            failsafe: Milliamps::amps(6),
            device: Some(device.clone()),
            class: 100,
            weight: 1,
            public: false,
            ocpp: config::EvseOcpp::default(),
        },
        device,
        definition: Arc::clone(&peer.definition),
        bus,
        setpoint: setpoints,
        released: permission,
        cap: watch::channel(None).1,
        fresh: plans,
        events: events_in,
        clock,
    };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver::run(parts, stop.clone()));
    let want = |sequence: u64, amps: i64| {
        setpoint.send_replace(Some(Setpoint {
            sequence,
            limit: Milliamps::amps(amps),
            failsafe: Milliamps::amps(6),
            lease: Duration::from_secs(600),
            one_phase: false,
            reason: String::new(),
        }));
    };
    want(1, 10);
    let (mut charging, mut confirmed, mut drawn) = (false, 0, false);
    let current = peer.expected.get("current-l1").copied();
    while !(charging && confirmed == 2 && drawn) {
        let Some(Event::Evse(_, event)) = events.recv().await else { return Err("the driver ended".into()) };
        match event {
            EvseEvent::Status { status: ConnectorStatus::Charging, .. } => charging = true,
            EvseEvent::Status { status, error } => return Err(format!("{status:?} {error}")),
            EvseEvent::Problem(why) if !why.is_empty() => return Err(why),
            EvseEvent::Refused { why, .. } => return Err(why),
            EvseEvent::Confirmed { sequence: 1, limit, .. } => {
                if limit != Milliamps::amps(10) {
                    return Err(format!("{limit} instead of 10 A"));
                }
                confirmed = 1;
                want(2, 0);
            }
            EvseEvent::Confirmed { sequence: 2, limit, .. } => {
                if limit != Milliamps::ZERO {
                    return Err(format!("{limit} instead of 0 A"));
                }
                confirmed = 2;
            }
            EvseEvent::Draw(draw) => {
                let got = draw.currents.map(|c| c[0].0 as f64 / 1000.0);
                if got.is_some() != current.is_some()
                    || got.zip(current).is_some_and(|(g, c)| (g - c).abs() > 0.001)
                {
                    return Err(format!("draws {got:?}, {current:?} was written"));
                }
                drawn = true;
            }
            _ => {}
        }
    }
    stop.cancel();
    Ok(())
}
