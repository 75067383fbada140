//! ocpp-kit on both sides of the daemon: its station, its CSMS with the ledger, and its types, which refuse a payload
//! that the schema does not allow. One version per run, given as the only argument.
//!
//! In: the daemon's port, as a line. Out: the CSMS's port as the first line, then one line per check (`what\tyes` or
//! `what\tNO`). The middle of the transaction happens while the CSMS is away.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use ocpp_kit::{
    RawValue, Version,
    csms::{
        events::{Observed, observe_v16, observe_v21, observe_v201, to_ledger_event_with_id},
        ledger::{Ingested, Ledger},
    },
    decode::DecodeOptions,
    engine::{CallOptions, IncomingRequest},
    rpc::CallError,
    transport::{
        Auth, AuthOutcome, BasicAuthPassword, BoxFuture, Csms, CsmsHandle, Ctx, Handle, Handler,
        SecurityProfile, Station,
    },
    types::Identity,
    v1_6, v2_0_1, v2_1,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

const IDENTITY: &str = "KIT";
const DEADLINE: Duration = Duration::from_secs(60);
const BEGIN: &str = "2026-11-24T10:00:00Z";
const FROM_WH: i64 = 1_000;
const TO_WH: i64 = 8_250;

fn check(what: &str, good: bool) {
    println!("{what}\t{}", if good { "yes" } else { "NO" });
}

/// What both peers saw.
#[derive(Default)]
struct Seen {
    ledger: Ledger,
    verdicts: Vec<Ingested>,
    /// In words: what the strict types refused, what the ledger warned of.
    faults: Vec<String>,
    /// Profiles that the station was given.
    profiles: usize,
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Seen>>);

impl Book {
    fn look(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the error of a strict reading.
    fn read<T, E: std::fmt::Display>(&self, who: &str, what: &str, outcome: Result<T, E>) -> Option<T> {
        outcome.map_err(|error| self.look().faults.push(format!("{who}: {what}: {error}"))).ok()
    }
}

/// A payload of 2.0.1 and 2.1, or of 1.6.
fn by(version: Version, sixteen: Value, two: Value) -> Value {
    if version == Version::V1_6 { sixteen } else { two }
}

fn raw(payload: &Value) -> Result<Box<RawValue>, CallError> {
    RawValue::from_string(payload.to_string()).map_err(|error| CallError::internal(error.to_string()))
}

/// Reads a request of a station with the types of its version.
fn observe(version: Version, request: &IncomingRequest) -> Result<Observed, CallError> {
    let strict = DecodeOptions::strict();
    let unknown = || CallError::not_implemented(&request.action);
    Ok(match version {
        Version::V1_6 => {
            let action = v1_6::Action::from_wire(&request.action).ok_or_else(unknown)?;
            observe_v16(&v1_6::CsRequest::decode(action, &request.payload, &strict)?)
        }
        Version::V2_0_1 => {
            let action = v2_0_1::Action::from_wire(&request.action).ok_or_else(unknown)?;
            observe_v201(&v2_0_1::CsRequest::decode(action, &request.payload, &strict)?)
        }
        _ => {
            let action = v2_1::Action::from_wire(&request.action).ok_or_else(unknown)?;
            observe_v21(&v2_1::CsRequest::decode(action, &request.payload, &strict)?)
        }
    })
}

/// Reads a payload with the types of its version; the error is in words.
fn strict(version: Version, action: &str, answer: bool, payload: &RawValue) -> Result<(), String> {
    let options = DecodeOptions::strict();
    macro_rules! with {
        ($module:ident) => {{
            let action = $module::Action::from_wire(action).ok_or("no such action")?;
            let read = if answer { $module::transcode_response } else { $module::transcode_request };
            read(action, payload, &options).map(drop).map_err(|error| error.to_string())
        }};
    }
    match version {
        Version::V1_6 => with!(v1_6),
        Version::V2_0_1 => with!(v2_0_1),
        _ => with!(v2_1),
    }
}

struct Backend(Book);

impl Handler for Backend {
    fn on_request(
        &self,
        ctx: Ctx,
        request: IncomingRequest,
    ) -> BoxFuture<'_, Result<Box<RawValue>, CallError>> {
        Box::pin(async move {
            let version = ctx.version();
            let observed = observe(version, &request);
            let Some(observed) = self.0.read("CSMS", &request.action, observed) else {
                return Err(CallError::not_supported(&request.action));
            };
            let mut seen = self.0.look();
            seen.faults.extend(observed.warnings.iter().map(|w| format!("CSMS: {w}")));
            if let Some(event) = to_ledger_event_with_id(ctx.identity(), &observed, "4711") {
                let sixteen = version == Version::V1_6;
                let verdict =
                    if sixteen { seen.ledger.ingest_unsequenced(&event) } else { seen.ledger.ingest(&event) };
                seen.verdicts.push(verdict);
            }
            raw(&match &*request.action {
                "BootNotification" => {
                    json!({ "status": "Accepted", "interval": 300, "currentTime": BEGIN })
                }
                "Heartbeat" => json!({ "currentTime": BEGIN }),
                "StartTransaction" => json!({ "transactionId": 4711, "idTagInfo": { "status": "Accepted" } }),
                _ => json!({}),
            })
        })
    }
}

struct Point(Book);

impl Handler for Point {
    fn on_request(
        &self,
        ctx: Ctx,
        request: IncomingRequest,
    ) -> BoxFuture<'_, Result<Box<RawValue>, CallError>> {
        Box::pin(async move {
            let read = strict(ctx.version(), &request.action, false, &request.payload);
            self.0.read("station", &request.action, read);
            match &*request.action {
                "SetChargingProfile" => {
                    self.0.look().profiles += 1;
                    raw(&json!({ "status": "Accepted" }))
                }
                "ClearChargingProfile" | "Reset" => raw(&json!({ "status": "Accepted" })),
                "TriggerMessage" => raw(&json!({ "status": "NotImplemented" })),
                other => Err(CallError::not_supported(other)),
            }
        })
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.with_context(|| format!("waited in vain: {what}"))
}

fn serve(
    listener: TcpListener,
    version: Version,
    book: &Book,
) -> anyhow::Result<(CsmsHandle, JoinHandle<()>)> {
    let csms = Csms::builder()
        .bind(listener.local_addr()?)
        .versions([version])
        .compression(false)
        .authenticate(|_: Auth| async { AuthOutcome::accept() })
        .handler(Backend(book.clone()))
        .build()?;
    let handle = csms.handle();
    Ok((handle, tokio::spawn(async move { drop(csms.serve_on(listener).await) })))
}

/// The station's CALL; its answer is read strictly.
async fn call(to: &Handle, book: &Book, action: &str, payload: Value) -> anyhow::Result<Value> {
    let payload = RawValue::from_string(payload.to_string())?;
    let asked = tokio::time::timeout(DEADLINE, to.call_raw(action, payload, CallOptions::default()));
    let answer = asked.await.with_context(|| format!("{action} is not answered"))?;
    let answer = answer.map_err(|error| anyhow::anyhow!("{action}: {error}"))?;
    let answer = answer.payload().context("no answer")?;
    book.read("answer", action, strict(to.state().version, action, true, answer));
    Ok(serde_json::from_str(answer.get())?)
}

/// A reading of the register; 1.6 has its values as text.
fn reading(version: Version, time: &str, wh: i64) -> Value {
    let value = by(version, json!(wh.to_string()), json!(wh));
    let unit = by(version, json!({ "unit": "Wh" }), json!({ "unitOfMeasure": { "unit": "Wh" } }));
    let mut sample = json!({ "value": value, "measurand": "Energy.Active.Import.Register" });
    if let (Some(sample), Some(unit)) = (sample.as_object_mut(), unit.as_object()) {
        sample.extend(unit.clone());
    }
    json!([{ "timestamp": time, "sampledValue": [sample] }])
}

fn event(version: Version, kind: &str, number: i64, wh: i64) -> Value {
    let time = format!("2026-11-24T10:0{number}:00Z");
    let reason = match kind {
        "Started" => "CablePluggedIn",
        "Updated" => "MeterValuePeriodic",
        _ => "EVDeparted",
    };
    json!({
        "eventType": kind, "timestamp": time, "triggerReason": reason, "seqNo": number,
        "transactionInfo": { "transactionId": "kit-1" }, "evse": { "id": 1, "connectorId": 1 },
        "meterValue": reading(version, &time, wh),
    })
}

/// A transaction; from its second message on, the CSMS is away.
async fn charge(
    station: &Handle,
    version: Version,
    book: &Book,
    away: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let middle = (FROM_WH + TO_WH) / 2;
    if version == Version::V1_6 {
        let start = json!({ "connectorId": 1, "idTag": "C", "meterStart": FROM_WH, "timestamp": BEGIN });
        let id = call(station, book, "StartTransaction", start).await?["transactionId"].clone();
        away().await?;
        let time = "2026-11-24T10:01:00Z";
        let values =
            json!({ "connectorId": 1, "transactionId": id, "meterValue": reading(version, time, middle) });
        call(station, book, "MeterValues", values).await?;
        let stop = json!({ "transactionId": id, "meterStop": TO_WH, "timestamp": "2026-11-24T10:02:00Z" });
        call(station, book, "StopTransaction", stop).await?;
    } else {
        call(station, book, "TransactionEvent", event(version, "Started", 0, FROM_WH)).await?;
        away().await?;
        // The first may come before the daemon has noticed; its answer says that it has.
        call(station, book, "TransactionEvent", event(version, "Updated", 1, middle)).await?;
        call(station, book, "TransactionEvent", event(version, "Updated", 2, middle)).await?;
        call(station, book, "TransactionEvent", event(version, "Ended", 3, TO_WH)).await?;
    }
    Ok(())
}

async fn story(version: Version, book: &Book) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let (csms, serving) = serve(listener, version, book)?;
    println!("{}", at.port());
    let port = BufReader::new(tokio::io::stdin()).lines().next_line().await?.context("the daemon's port")?;

    let identity = Identity::new(IDENTITY).map_err(|error| anyhow::anyhow!("{error}"))?;
    let station = Station::builder()
        .identity(IDENTITY)?
        .url(format!("ws://127.0.0.1:{}", port.trim()))
        .versions([Version::V2_1, Version::V2_0_1, Version::V1_6])
        .security_profile(SecurityProfile::BasicAuth)
        .password(BasicAuthPassword::raw(Vec::new()))
        .compression(true)
        .handler(Point(book.clone()))
        .build()?
        .spawn()?;
    let boot = by(
        version,
        json!({ "chargePointModel": "M", "chargePointVendor": "V" }),
        json!({ "reason": "PowerUp", "chargingStation": { "model": "M", "vendorName": "V" } }),
    );
    let booted = call(&station, book, "BootNotification", boot).await?;
    check("boot", booted["status"] == "Accepted");
    let north = csms.session(&identity).await.context("no session at the CSMS")?;
    check("one version on both legs", (station.state().version, north.state().version) == (version, version));
    let plugged = by(
        version,
        json!({ "connectorId": 1, "errorCode": "NoError", "status": "Preparing" }),
        json!({ "timestamp": BEGIN, "connectorStatus": "Occupied", "evseId": 1, "connectorId": 1 }),
    );
    call(&station, book, "StatusNotification", plugged).await?;
    until("our limit", || book.look().profiles > 0).await?;
    check("our limit, read strictly", true);
    let reset =
        call(&north, book, "Reset", json!({ "type": by(version, json!("Soft"), json!("OnIdle")) })).await?;
    check("calls pass down", reset["status"] == "Accepted");
    let place = by(version, json!("connectorId"), json!("evseId"));
    let mut ask = json!({ "duration": 600, "chargingRateUnit": "A" });
    ask[place.as_str().unwrap_or_default()] = json!(1);
    let composite = call(&north, book, "GetCompositeSchedule", ask).await?;
    check("our composite schedule, read strictly", composite["status"] == "Accepted");

    let away = async || {
        serving.abort();
        csms.shutdown(Duration::from_secs(5)).await;
        until("the CSMS is away", || serving.is_finished()).await
    };
    charge(&station, version, book, away).await?;
    let told = book.look().verdicts.len();
    check("the rest waits for the CSMS", told == 1);
    let (_csms, _serving) = serve(TcpListener::bind(at).await?, version, book)?;
    let all = if version == Version::V1_6 { 3 } else { 4 };
    until("the end of the transaction", || book.look().verdicts.len() >= all).await?;
    station.shutdown(Duration::from_secs(5)).await;

    let seen = book.look();
    let once = seen.verdicts.iter().all(|v| *v == Ingested::Applied) && seen.verdicts.len() == all;
    check("each message once, by its ledger", once);
    let id = if version == Version::V1_6 { "4711" } else { "kit-1" };
    let record = seen.ledger.transaction(&identity, id).context("no such transaction in the ledger")?;
    check("closed, nothing missing", !record.is_open() && record.missing().is_empty());
    let energy = record.energy_wh().map(|wh| wh.to_string());
    check("its energy", energy.as_deref() == Some((TO_WH - FROM_WH).to_string().as_str()));
    if version != Version::V1_6 {
        check("told as offline", record.had_offline_events);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let version = match std::env::args().nth(1).as_deref() {
        Some("1.6") => Version::V1_6,
        Some("2.0.1") => Version::V2_0_1,
        Some("2.1") => Version::V2_1,
        other => bail!("a version is missing: 1.6, 2.0.1 or 2.1, not {other:?}"),
    };
    let book = Book::default();
    let outcome = story(version, &book).await;
    let faults = std::mem::take(&mut book.look().faults);
    for fault in &faults {
        eprintln!("   {fault}");
    }
    check("nothing that its types refuse", faults.is_empty());
    outcome
}
