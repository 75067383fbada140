//! What the gateway costs: CALLs per second and added latency of the real daemon, of nginx as a WebSocket proxy, of a
//! relay in Python, and of no relay at all, in one run on one machine; CPU per round trip and memory per connection.
//!
//! Each connection has one CALL in flight (MeterValues of about 600 bytes; once without a transaction, which only passes
//! through, and once with one, which is on disk before it goes on). Clients and backend are this program; the relay is a
//! process of its own, so that its time and memory can be read from `/proc`. Figures of a loaded machine are good for
//! comparison only: the table says what the load was.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use futures_util::{SinkExt as _, StreamExt as _};
use ladewart_lab::{log::Log, process::Daemon};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{
    accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

fn small() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096)
}

/// A backend that takes everything.
async fn backend(listener: TcpListener) {
    let mut all = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = all.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    all.spawn(serve(stream));
                }
            }
        }
    }
}

async fn serve(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    #[expect(clippy::result_large_err, reason = "the callback's type is given")]
    let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("ocpp1.6"));
        Ok(response)
    };
    let mut socket = accept_hdr_async_with_config(stream, choose, Some(small())).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).ok()?;
        let payload = match frame[2].as_str()? {
            "BootNotification" => {
                json!({ "status": "Accepted", "interval": 86_400, "currentTime": "2026-11-24T00:00:00Z" })
            }
            "StartTransaction" => json!({ "transactionId": 1, "idTagInfo": { "status": "Accepted" } }),
            _ => json!({}),
        };
        socket.send(Message::text(json!([3, frame[1], payload]).to_string())).await.ok()?;
    }
    None
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(to: SocketAddr, n: u32) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{to}/cp-{n}").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("ocpp1.6"));
    Ok(client_async_with_config(request, stream, Some(small())).await?.0)
}

/// Sends a CALL and waits for its answer; CALLs that come in are taken.
async fn call(socket: &mut Socket, id: &str, action: &str, payload: &Value) -> anyhow::Result<()> {
    socket.send(Message::text(json!([2, id, action, payload]).to_string())).await?;
    loop {
        let message = socket.next().await.context("the connection ended")??;
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text)?;
        if frame[0] == 2 {
            socket.send(Message::text(json!([3, frame[1], { "status": "Accepted" }]).to_string())).await?;
        } else if frame[1] == id {
            ensure!(frame[0] == 3, "answered with {text}");
            return Ok(());
        }
    }
}

/// The n-th reading: a reading with the same content as one before would not go on, it is that one.
fn values(n: usize, transaction: Option<u32>) -> Value {
    let at = format!(
        "2026-11-24T{:02}:{:02}:{:02}.{:03}Z",
        n / 3_600_000 % 24,
        n / 60_000 % 60,
        n / 1000 % 60,
        n % 1000
    );
    let sample = |phase: &str, measurand: &str, unit: &str| json!({ "value": "16.0", "context": "Sample.Periodic", "measurand": measurand, "phase": phase, "unit": unit });
    let mut payload = json!({ "connectorId": 1, "meterValue": [{ "timestamp": at, "sampledValue": [
        sample("L1", "Current.Import", "A"), sample("L2", "Current.Import", "A"), sample("L3", "Current.Import", "A"),
        sample("L1", "Voltage", "V"), sample("L2", "Voltage", "V")] }] });
    if let Some(id) = transaction {
        payload["transactionId"] = json!(id);
    }
    payload
}

/// One relay's figures at one number of connections.
struct Figures {
    relay: &'static str,
    connections: u32,
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: Option<f64>,
    /// By how much its memory grew, KiB.
    memory: Option<f64>,
}

async fn measure(
    relay: &'static str,
    to: SocketAddr,
    connections: u32,
    lasting: Duration,
    process: Option<u32>,
    durable: bool,
) -> anyhow::Result<Figures> {
    let empty = process.map(memory).transpose()?;
    let mut sockets = Vec::new();
    for n in 0..connections {
        let mut socket = connect(to, n).await.with_context(|| format!("{relay}: connection {n}"))?;
        call(
            &mut socket,
            "boot",
            "BootNotification",
            &json!({ "chargePointVendor": "V", "chargePointModel": "M" }),
        )
        .await?;
        sockets.push(socket);
    }
    // What follows the boot is over.
    sleep(Duration::from_millis(500)).await;
    let before = process.map(cpu).transpose()?;
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for (n, mut socket) in sockets.into_iter().enumerate() {
        all.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < lasting {
                let payload = values(times.len(), durable.then_some(7));
                let sent = Instant::now();
                call(&mut socket, &format!("{n}-{}", times.len()), "MeterValues", &payload).await?;
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok((times, socket))
        });
    }
    let (mut times, mut open) = (Vec::new(), Vec::new());
    while let Some(one) = all.join_next().await {
        let (some, socket) = one??;
        times.extend(some);
        open.push(socket);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let full = process.map(memory).transpose()?;
    drop(open);
    ensure!(!times.is_empty(), "{relay}: no answer in time");
    times.sort_by(f64::total_cmp);
    let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    let count = times.len() as f64;
    let spent = process.map(cpu).transpose()?.zip(before).map(|(after, before)| (after - before) / count);
    let memory = full.zip(empty).map(|(full, empty)| full - empty);
    Ok(Figures {
        relay,
        connections,
        per_second: count / seconds,
        p50: rank(50),
        p99: rank(99),
        cpu: spent,
        memory,
    })
}

/// The process and its children.
fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let children = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(children).unwrap_or_default();
    family.extend(text.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
    family
}

/// Resident memory in KiB.
fn memory(process: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for one in family(process) {
        let status = std::fs::read_to_string(format!("/proc/{one}/status")).context("its memory")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        sum += line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
    }
    Ok(sum)
}

/// Time on a processor so far, µs: fields 14 and 15 of `/proc/PID/stat`, in ticks of 10 ms.
fn cpu(process: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for one in family(process) {
        let stat = std::fs::read_to_string(format!("/proc/{one}/stat")).context("its time")?;
        let fields = stat.rsplit_once(')').context("no stat")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok());
        sum += ticks.sum::<f64>() * 10_000.0;
    }
    Ok(sum)
}

/// Waits until somebody listens.
async fn listening(at: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..400 {
        if TcpStream::connect(at).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("nobody listens on {at}")
}

async fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

fn program(mut command: Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}

async fn nginx(directory: &Path, backend: SocketAddr) -> anyhow::Result<Option<(Child, SocketAddr)>> {
    let at = free().await?;
    let file = directory.join("nginx.conf");
    std::fs::write(
        &file,
        format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\n\
             events {{ worker_connections 2048; }}\n\
             http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             server {{ listen {at}; location / {{ proxy_pass http://{backend}; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 600s; }} }} }}\n",
            dir = directory.display()
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(directory);
    match program(command) {
        Ok(child) => {
            listening(at).await.context("nginx")?;
            Ok(Some((child, at)))
        }
        Err(_) => Ok(None),
    }
}

async fn python(backend: SocketAddr) -> anyhow::Result<Option<(Child, SocketAddr)>> {
    let Some(interpreter) = std::env::var_os("LADEWART_PYTHON") else { return Ok(None) };
    let at = free().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/relay.py");
    let mut command = Command::new(interpreter);
    command.arg(script).arg(at.port().to_string()).arg(backend.to_string());
    let child = program(command)?;
    listening(at).await.context("the relay in Python")?;
    Ok(Some((child, at)))
}

async fn daemon(directory: &Path, backend: SocketAddr, most: u32) -> anyhow::Result<(Daemon, SocketAddr)> {
    let at = free().await?;
    let mut text = format!(
        "[site]\nname = \"Speed\"\ndata = \"data\"\n[api]\nsocket = \"l.sock\"\n[uplink]\nmode = \"direct\"\n\
         [backend]\nurl = \"ws://{backend}/\"\n[ocpp]\nlisten = \"{at}\"\n[[node]]\nid = \"main\"\nfuse = \"3000 A\"\n"
    );
    for n in 0..most {
        let _ = write!(text, "[[evse]]\nid = \"cp-{n}\"\nmax = \"16 A\"\nfailsafe = \"6 A\"\n");
    }
    let file = directory.join("speed.toml");
    std::fs::write(&file, text)?;
    Ok((Daemon::start(&file, &Log::default()).await?, at))
}

/// Runs all.
pub(crate) async fn run(counts: &[u32], seconds: u32) -> anyhow::Result<()> {
    let lasting = Duration::from_secs(seconds.into());
    let directory = tempfile::Builder::new().prefix("ladewart-speed-").tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(backend(listener));
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut all = Vec::new();
    for &connections in counts {
        all.push(measure("direct", to, connections, lasting, None, false).await?);
        let (process, at) = daemon(directory.path(), to, most).await?;
        all.push(measure("ladewartd, passing", at, connections, lasting, process.pid(), false).await?);
        ensure!(process.stop().await?.success(), "the daemon failed");
        std::fs::remove_dir_all(directory.path().join("data")).context("the data of the run before")?;
        let (process, at) = daemon(directory.path(), to, most).await?;
        all.push(measure("ladewartd, durable", at, connections, lasting, process.pid(), true).await?);
        ensure!(process.stop().await?.success(), "the daemon failed");
        std::fs::remove_dir_all(directory.path().join("data")).context("the data of the run before")?;
        if let Some((child, at)) = nginx(directory.path(), to).await? {
            all.push(measure("nginx", at, connections, lasting, child.id(), false).await?);
        }
        if let Some((child, at)) = python(to).await? {
            all.push(measure("Python", at, connections, lasting, child.id(), false).await?);
        }
    }
    show(&all)
}

fn show(all: &[Figures]) -> anyhow::Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "connections",
        "relay",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "added p50 ms",
        "added p99 ms",
        "CPU µs/call",
        "KiB/further connection",
        "KiB in all",
    ]);
    let mut rows = Vec::new();
    for f in all {
        let none = all.iter().find(|n| n.relay == "direct" && n.connections == f.connections);
        let added = |of: fn(&Figures) -> f64| none.map_or(f64::NAN, |n| of(f) - of(n));
        let (p50, p99) = (added(|f| f.p50), added(|f| f.p99));
        // What the first connection brings along (caches, heaps of the threads) is not the second one's.
        let one = all.iter().find(|o| o.relay == f.relay && o.connections == 1).and_then(|o| o.memory);
        let memory = f.memory.zip(one).filter(|_| f.connections > 1);
        let memory = memory.map(|(full, one)| (full - one) / f64::from(f.connections - 1));
        let some = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
        table.add_row(vec![
            f.connections.to_string(),
            f.relay.to_owned(),
            format!("{:.0}", f.per_second),
            format!("{:.2}", f.p50),
            format!("{:.2}", f.p99),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            some(f.cpu),
            some(memory),
            some(f.memory),
        ]);
        rows.push(json!({
            "connections": f.connections, "relay": f.relay, "calls_per_second": f.per_second, "p50_ms": f.p50,
            "p99_ms": f.p99, "added_p50_ms": p50, "added_p99_ms": p99, "cpu_us_per_call": f.cpu,
            "kib_per_further_connection": memory, "kib_in_all": f.memory,
        }));
    }
    writeln!(io::stdout().lock(), "load {load}\n{table}")?;
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/report");
    std::fs::create_dir_all(&directory)?;
    let peer = "nginx, a relay on Python's websockets";
    let content = json!({ "name": "speed", "unit": "ms", "load": load, "rows": rows, "peer": peer });
    std::fs::write(directory.join("speed.json"), format!("{content:#}\n"))?;
    Ok(())
}
