//! Devices that tell JSON, against programs of other people: Python's HTTP server with the maker's documented answers,
//! mosquitto as broker, paho as the device there (`tests/devices/told.py`).
//!
//! Every quantity as it was told, every bad answer refused by name, a switch that follows, does not follow, and opens by its
//! own timer when nobody drives it any more. `tests/run devices` runs it; tables go to `target/report/devices_told.json` and
//! `devices_refused.json`.

#![expect(clippy::print_stdout, reason = "the table is for people")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ladewartd::{
    clock::Clock,
    config::{self, Attachment, Line, RelayFunction, Source},
    device::{
        Catalog, Definition,
        http::Client,
        line::System,
        mqtt::Broker,
        remote::{Switches, Way},
    },
    ids::{MeterId, RelayId},
    meter::document,
    relay,
    site::{Event, event::Reading},
    units::{Milliamps, Millivolts, Phase, WattHours, Watts},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Ends with its owner.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mosquitto(directory: &Path, port: u16) -> Program {
    let file = directory.join("mosquitto.conf");
    fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"))
        .unwrap();
    let program = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|p| Path::new(p).exists());
    let started = Command::new(program.unwrap_or("mosquitto"))
        .arg("-c")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let program = Program(started.expect("mosquitto starts"));
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < DEADLINE, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    program
}

/// The devices.
struct Peer {
    _program: Program,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    told: Value,
}

impl Peer {
    fn start(broker: u16) -> Self {
        let python = std::env::var("LADEWART_PYTHON").expect("LADEWART_PYTHON names a Python with paho");
        let mut program = Command::new(python)
            .arg(root().join("tests/devices/told.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let (input, output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        let output = BufReader::new(output).lines();
        let mut peer = Self { _program: Program(program), input, output, told: Value::Null };
        peer.told = peer.say(&json!({ "broker": broker }));
        peer
    }

    /// Tells it what shall be; what its switches are then.
    fn say(&mut self, what: &Value) -> Value {
        writeln!(self.input, "{what}").unwrap();
        serde_json::from_str(&self.output.next().expect("the peer ended").unwrap()).unwrap()
    }

    fn text(&self, name: &str) -> String {
        self.told[name].as_str().unwrap().to_owned()
    }

    fn closed(&mut self, which: &str) -> bool {
        self.say(&json!({}))[which].as_bool().unwrap()
    }
}

fn meter(device: &str, at: Attachment) -> config::Meter {
    config::Meter {
        id: MeterId::new("m"),
        device: device.to_owned(),
        at,
        unit: None,
        interval: Duration::from_millis(200),
        inverted: false,
    }
}

/// What the site hears of the meter.
struct Heard(mpsc::Receiver<Event>);

impl Heard {
    async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.0.recv()).await.expect("nothing is heard").expect("the meter ended")
    }

    async fn reading(&mut self) -> Reading {
        loop {
            if let Event::Reading(_, reading) = self.next().await {
                return reading;
            }
        }
    }

    /// The next problem that says this.
    async fn problem(&mut self, says: &str) -> String {
        loop {
            if let Event::MeterProblem(_, why) = self.next().await {
                if why.contains(says) {
                    return why;
                }
                println!("   not yet {says:?}: {why}");
            }
        }
    }
}

/// How many of the told values are in the reading.
fn same(reading: &Reading, told: &BTreeMap<String, f64>) -> usize {
    let thousandths = |name: &str| {
        #[expect(clippy::cast_possible_truncation, reason = "small values")]
        let whole = (told[name] * 1000.0).round() as i64;
        whole
    };
    for (phase, n) in Phase::ALL.into_iter().zip(1..) {
        assert_eq!(reading.voltages[phase], Millivolts(thousandths(&format!("voltage-l{n}"))));
        let (power, current) =
            (told[&format!("power-l{n}")], Milliamps(thousandths(&format!("current-l{n}"))));
        if power < 0.0 {
            // Of what flows back the active part counts.
            assert!(
                reading.currents[phase] < Milliamps::ZERO && reading.currents[phase] >= Milliamps(-current.0)
            );
        } else {
            assert_eq!(reading.currents[phase], current);
        }
    }
    assert_eq!(reading.power, Watts(2238));
    assert_eq!(reading.import, Some(WattHours(8001)));
    assert_eq!(reading.export, Some(WattHours(300)));
    told.len()
}

fn report(name: &str, unit: &str, peer: &str, rows: &[Value]) {
    let directory = root().join("target/report");
    fs::create_dir_all(&directory).unwrap();
    let text = json!({ "name": name, "unit": unit, "peer": peer, "rows": rows });
    fs::write(directory.join(format!("{name}.json")), format!("{text}\n")).unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn broker(port: u16, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Broker {
    let config = config::Broker { id: "house".to_owned(), host: "127.0.0.1".to_owned(), port, login: None };
    let (broker, task) = Broker::new(&config, stop.clone());
    tasks.spawn(task);
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and paho; tests/run devices runs it"]
async fn meters_that_tell_json_are_read_and_their_bad_answers_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut running = mosquitto(directory.path(), port);
    let mut peer = Peer::start(port);
    let told: BTreeMap<String, f64> = serde_json::from_value(peer.told["expected"].clone()).unwrap();
    let (catalog, clock, stop) = (Catalog::load(None).unwrap(), Clock::system(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let (mut rows, mut refused) = (Vec::new(), Vec::new());

    let definition = catalog.find("shelly-pro-3em").unwrap();
    let telling = definition.telling.clone().unwrap();
    let mut client = Client::new(peer.text("http"), DEADLINE);
    let values = document::ask(&mut client, &telling, clock).await.unwrap();
    assert_eq!(values.len(), told.len());
    for (quantity, value) in values {
        let value = value.unwrap();
        assert!((value - told[quantity.name()]).abs() < 1e-9, "{quantity} is {value}");
    }
    let (events_in, events) = mpsc::channel(256);
    let config = meter("shelly-pro-3em", Attachment::Http(peer.text("http")));
    tasks.spawn(document::asked(config, definition, peer.text("http"), events_in, clock, stop.clone()));
    let mut heard = Heard(events);
    let fields = same(&heard.reading().await, &told);
    rows.push(json!({ "definition": "shelly-pro-3em", "over": "HTTP", "fields": fields }));
    for (fault, says) in [
        ("html", "not JSON"),
        ("cut", "not JSON"),
        ("null", "current-l2 (\"/b_current\") is not available: null"),
        ("missing", "voltage-l3 is missing: /rpc/EM.GetStatus?id=0 has no \"/c_voltage\""),
        ("text", "power-l1 (\"/a_act_power\") is \"2413.6\", not a number"),
        ("implausible", "voltage-l1 is 2335 V, outside 0 to 300"),
        ("late", "within 2s"),
        ("password", "answers 401 Unauthorized; switch its password off"),
        ("long", "is longer than 65536 bytes"),
    ] {
        peer.say(&json!({ "http": fault }));
        let why = heard.problem(says).await;
        println!("   {fault}: {why}");
        refused.push(json!({ "over": "HTTP", "fault": fault, "said": why }));
        peer.say(&json!({ "http": null }));
        heard.reading().await;
    }

    let broker = broker(port, &mut tasks, &stop);
    let definition = catalog.find("shelly-pro-3em-mqtt").unwrap();
    let way = (broker, peer.text("topic"));
    let at = Attachment::Topic { broker: 0, topic: peer.text("topic") };
    let (events_in, events) = mpsc::channel(256);
    // As if it were a second site, which does not wait so long.
    let mut quick = (*definition).clone();
    if let Some(telling) = &mut quick.telling {
        telling.max_age = Duration::from_secs(3);
    }
    let config = meter("shelly-pro-3em-mqtt", at);
    tasks.spawn(document::listened(config, Arc::new(quick), way, events_in, clock, stop.clone()));
    let mut heard = Heard(events);
    let reading = loop {
        // The energies are another message, which may come later.
        let reading = heard.reading().await;
        if reading.import.is_some() {
            break reading;
        }
    };
    let fields = same(&reading, &told);
    rows.push(json!({ "definition": "shelly-pro-3em-mqtt", "over": "MQTT", "fields": fields }));
    for (fault, says) in [
        ("garbage", "status/em:0: not JSON"),
        ("null", "current-l2 (\"/b_current\") is not available: null"),
        ("implausible", "voltage-l1 is 2335 V, outside 0 to 300"),
        ("silent", "nothing under \"shellypro3em-b8d61a/status/em:0\" for 3s"),
    ] {
        peer.say(&json!({ "mqtt": fault }));
        let why = heard.problem(says).await;
        println!("   {fault}: {why}");
        refused.push(json!({ "over": "MQTT", "fault": fault, "said": why }));
        peer.say(&json!({ "mqtt": null }));
        heard.reading().await;
    }
    drop(running);
    let why = heard.problem("broker \"house\" at 127.0.0.1:").await;
    refused.push(json!({ "over": "MQTT", "fault": "broker gone", "said": why }));
    running = mosquitto(directory.path(), port);
    heard.reading().await;

    for row in &rows {
        println!("   {row}");
    }
    let peers = "Python http.server; mosquitto with paho-mqtt 2.2.0";
    report("devices_told", "fields", peers, &rows);
    report("devices_refused", "faults", peers, &refused);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and paho; tests/run devices runs it"]
async fn switches_follow_say_when_they_do_not_and_open_when_nobody_drives_them() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = mosquitto(directory.path(), port);
    let mut peer = Peer::start(port);
    for (which, name) in [("http", "shelly-switch"), ("mqtt", "shelly-switch-mqtt")] {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (way, at) = match which {
            "http" => (Way::Http(peer.text("http")), Attachment::Http(peer.text("http"))),
            _ => (
                Way::Mqtt(broker(port, &mut tasks, &stop), peer.text("switch")),
                Attachment::Topic { broker: 0, topic: peer.text("switch") },
            ),
        };
        let id = RelayId::new("k1");
        // The shipped definition; its own timer does not take so long.
        let file = root().join("daemon/devices").join(format!("{name}.toml"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("15"), "{text}");
        let source = Source::new(file, text.replace("15", "5"));
        let definition = Arc::new(Definition::parse(&source).unwrap());
        let switches = Switches::new(vec![(id.clone(), definition, way)], &stop, |task| {
            tasks.spawn(task);
        });
        let config = config::Relay {
            id: id.clone(),
            line: Line::Switch { relay: id, definition: name.to_owned(), at },
            function: RelayFunction::Unlimited,
            mirror: None,
            min_on: Duration::ZERO,
            min_off: Duration::ZERO,
        };
        let (wanted, wishes) = watch::channel(false);
        let (_cleared, words) = watch::channel(0);
        let (events_in, mut events) = mpsc::channel(64);
        let board = System { switches };
        let keep = directory.path().to_owned();
        tasks.spawn(relay::run(
            config,
            board,
            relay::Told { wanted: wishes, cleared: words },
            keep,
            events_in,
            Clock::system(),
            stop.clone(),
        ));
        let mut until = async |says: Result<bool, &str>| loop {
            let event = timeout(DEADLINE, events.recv()).await.expect("nothing is heard").expect("ended");
            let Event::Relay(_, state) = event else { continue };
            match (&state, &says) {
                (Ok(state), Ok(wanted)) if state == wanted => return,
                (Err(why), Err(says)) if why.contains(says) => return,
                other => println!("   {which}: {other:?}"),
            }
        };
        until(Ok(false)).await;
        wanted.send_replace(true);
        until(Ok(true)).await;
        assert!(peer.closed(which), "{which} was told to close");
        wanted.send_replace(false);
        until(Ok(false)).await;
        assert!(!peer.closed(which), "{which} was told to open");
        peer.say(&json!({ "stuck": true }));
        wanted.send_replace(true);
        until(Err("does not follow: ordered energised, is de-energised")).await;
        peer.say(&json!({ "stuck": false }));
        until(Ok(true)).await;
        assert!(peer.closed(which));
        if which == "http" {
            // Asked to end: it opens at once.
            stop.cancel();
            while tasks.join_next().await.is_some() {}
            assert!(!peer.closed(which), "the last order was to open");
        } else {
            // Dead in an instant: its own timer opens it.
            tasks.shutdown().await;
            assert!(peer.closed(which), "nobody told it to open");
            let begun = Instant::now();
            while peer.closed(which) {
                assert!(begun.elapsed() < DEADLINE, "it stays closed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        println!("   {name:20} follows, told when it does not, opens when nobody drives it");
    }
}
