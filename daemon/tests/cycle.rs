//! How long eight meters on one serial line take, against what the line alone takes.
//!
//! The meters are pymodbus behind a pacer that delays each byte by its bits (`tests/devices/paced.py`). A figure, no judgement:
//! `target/report/bus_cycle.json`. `tests/run devices` runs it.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ladewartd::device::{
    Catalog, Reader,
    bus::{Bus, Port, Wire, frame::Mode, serial::Parity},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const METERS: u8 = 8;
const CYCLES: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pymodbus; tests/run devices runs it"]
async fn eight_meters_on_one_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var("LADEWART_PYTHON").expect("LADEWART_PYTHON names a Python with pymodbus");
    let definition = Catalog::load(None).unwrap().find("eastron-sdm630").unwrap();
    let mut rows = Vec::new();
    for (parity, stop_bits, bits) in [(Parity::Even, 1, 11), (Parity::None, 1, 10)] {
        let mut program = Command::new(&python)
            .arg(root.join("tests/devices/paced.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let mut input = program.stdin.take().unwrap();
        let file = root.join("daemon/devices/eastron-sdm630.toml");
        writeln!(input, "{}", json!({ "definition": file, "units": METERS, "baud": 19_200, "bits": bits }))
            .unwrap();
        let mut output = BufReader::new(program.stdout.take().unwrap()).lines();
        let told: Value = serde_json::from_str(&output.next().expect("the peer ended").unwrap()).unwrap();
        let port = Port {
            path: told["at"].as_str().unwrap().into(),
            mode: Mode::Rtu,
            baud: 19_200,
            parity,
            data_bits: 8,
            stop_bits,
            answer: Duration::from_secs(5),
            late: Duration::from_secs(6),
        };
        let block = &definition.blocks[0];
        // Address, function, start, count, check sum; address, function, length, registers, check sum.
        let characters = 8 + 5 + 2 * usize::from(block.count);
        let line = (port.time_of(characters) + port.silence()) * u32::from(METERS);
        let stop = CancellationToken::new();
        let (bus, task) = Bus::new(Wire::Serial(port), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        let mut cycles = Vec::new();
        for _ in 0..CYCLES {
            let begun = Instant::now();
            let mut readings = JoinSet::new();
            for unit in 1..=METERS {
                let (definition, bus) = (Arc::clone(&definition), bus.clone());
                readings.spawn(async move {
                    let mut reader = Reader::new(definition, bus, Some(unit), Duration::from_secs(60));
                    reader.blocks().await
                });
            }
            for reading in readings.join_all().await {
                assert_eq!(reading.expect("a meter answers").len(), 1);
            }
            cycles.push(begun.elapsed());
        }
        stop.cancel();
        drop(input);
        let ended: Value = serde_json::from_str(&output.next().expect("the peer ended").unwrap()).unwrap();
        let _ = program.wait();
        let of = |name: &str| ended[name].as_f64().unwrap();
        let slaves = Duration::from_secs_f64(of("turnaround") / of("requests") * f64::from(METERS));
        let gap = Duration::from_secs_f64(of("gap") / of("gaps"));
        cycles.sort();
        let (least, median) = (cycles[0], cycles[CYCLES / 2]);
        let ratio = |cycle: Duration| cycle.as_secs_f64() / line.as_secs_f64();
        let own = (median.saturating_sub(slaves)).as_secs_f64() / line.as_secs_f64();
        println!(
            "   {METERS} meters, 19200 Bd, {bits} bits: line {line:?}, cycle {median:?}: {:.3} times, best {:.3}; pymodbus {slaves:?} of it, {own:.3} without; idle {gap:?} before a request",
            ratio(median),
            ratio(least)
        );
        rows.push(json!({
            "bits": bits, "line_ms": line.as_secs_f64() * 1e3, "cycle_ms": median.as_secs_f64() * 1e3,
            "ratio": ratio(median), "best_ratio": ratio(least), "pymodbus_ms": slaves.as_secs_f64() * 1e3,
            "ratio_without_pymodbus": own, "gap_ms": gap.as_secs_f64() * 1e3,
        }));
    }
    let report = root.join("target/report");
    fs::create_dir_all(&report).unwrap();
    let text =
        json!({ "name": "bus_cycle", "unit": "ms", "peer": "pymodbus 3.16.1 behind a pacer", "rows": rows });
    fs::write(report.join("bus_cycle.json"), format!("{text}\n")).unwrap();
}
