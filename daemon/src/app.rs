//! Builds every task and wires the channels; the only file that knows all rooms.
//!
//! In: a checked configuration. Out: a daemon that runs until it is asked to stop. Invariant: no task is detached; when
//! one ends before it was asked to, the daemon ends with a sentence that names it.

mod devices;
mod locals;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::devices::Devices;
use crate::{
    api,
    clock::Clock,
    config::{self, Config, ConfigError, Source},
    control::{self, Control},
    device::{Catalog, Definition, definition::DeviceKind},
    grid, identity,
    ids::RelayId,
    journal::{self, Entry, Journal, Signer},
    ocpp,
    remote::{Lan, Operators},
    smgw::{self, BackendDialer, Dial, Uplink},
    store::{Migration, Store},
    sunspec, tariff,
    time::Mono,
    tls,
    units::Watts,
    update, variable,
};

/// How long tasks may take to end once asked.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that can be made before a port is bound: what fails here is the configuration's fault.
pub struct App {
    config: Arc<Config>,
    catalog: Catalog,
    definitions: Vec<Arc<Definition>>,
    wallboxes: Vec<Option<Arc<Definition>>>,
    switches: Vec<(RelayId, Arc<Definition>, config::Attachment)>,
    clock: Clock,
    identities: identity::Store,
    uplink: Option<Uplink>,
    backend: Option<BackendDialer>,
    /// The way to each EVSE's own backend.
    ways: Vec<Option<Arc<dyn Dial>>>,
    evse_tls: Option<Arc<rustls::ServerConfig>>,
    schemas: Option<Arc<ocpp::Schemas>>,
    operators: Option<Operators>,
    lan: Option<Lan>,
}

type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

impl App {
    /// Reads the files that the configuration names.
    pub fn prepare(config: Config, source: &Source) -> Result<Self, ConfigError> {
        let clock = Clock::system();
        let catalog =
            Catalog::load(config.device_dir.as_deref()).map_err(|e| source.problem("site.devices", e))?;
        let mut definitions = Vec::with_capacity(config.meters.len());
        for (i, meter) in config.meters.iter().enumerate() {
            let field = format!("meter[{i}].device");
            let definition = catalog.find(&meter.device).map_err(|e| source.problem(&field, e))?;
            let definition =
                devices::of_kind(definition, DeviceKind::Meter).map_err(|e| source.problem(&field, e))?;
            definitions
                .push(devices::in_place(definition, &meter.at).map_err(|e| source.problem(&field, e))?);
        }
        let mut wallboxes = Vec::with_capacity(config.evses.len());
        for (i, evse) in config.evses.iter().enumerate() {
            let field = format!("evse[{i}].device.definition");
            let find = |d: &config::EvseDevice| {
                let definition = catalog.find(&d.definition).map_err(|e| source.problem(&field, e))?;
                devices::of_kind(definition, DeviceKind::Wallbox).map_err(|e| source.problem(&field, e))
            };
            wallboxes.push(evse.device.as_ref().map(find).transpose()?);
        }
        let switches = devices::switches(&config, &catalog, source)?;
        let identities = identity::Store::open(&config.data_dir.join("identity"), clock)
            .map_err(|e| source.problem("site.data", e))?;
        let uplink = config.uplink.as_ref().map(|u| Uplink::with_store(u, &identities, clock));
        let uplink = uplink.transpose().map_err(|e| source.problem(e.field, e.problem))?;
        let backend = match (&config.backend, &uplink) {
            (Some(backend), Some(uplink)) => Some(BackendDialer::new(uplink, backend)),
            _ => None,
        };
        let backend = backend.transpose().map_err(|e| source.problem(e.field, e.problem))?;
        let ways = ways(&config, uplink.as_ref(), source)?;
        let evse_tls = evse_tls(&config.ocpp, clock, source)?;
        let schemas = match (config.ocpp.check, &config.ocpp.schemas) {
            (config::Check::Off, _) | (_, None) => None,
            (_, Some(directory)) => {
                Some(ocpp::Schemas::load(directory).map_err(|e| source.problem("ocpp.schemas", e))?)
            }
        };
        let operators = Operators::new(&config, uplink.as_ref(), clock);
        let operators = operators.map_err(|e| source.problem(&e.field, e.problem))?;
        let lan = config.api.lan.as_ref().map(|lan| Lan::new(lan, clock)).transpose();
        let lan = lan.map_err(|e| source.problem(&e.field, e.problem))?;
        Ok(Self {
            config: Arc::new(config),
            catalog,
            definitions,
            wallboxes,
            switches,
            clock,
            identities,
            uplink,
            backend,
            ways,
            evse_tls,
            schemas,
            operators,
            lan,
        })
    }

    /// Binds, starts, announces, runs until SIGTERM or SIGINT, drains.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (clock, config) = (self.clock, Arc::clone(&self.config));
        let stop = CancellationToken::new();
        let migrations: Vec<Migration> = [
            journal::MIGRATIONS,
            grid::MIGRATIONS,
            ocpp::MIGRATIONS,
            tariff::keep::MIGRATIONS,
            variable::keep::MIGRATIONS,
        ]
        .concat();
        let (store, writer) = Store::open(&config.data_dir, &migrations)
            .with_context(|| format!("cannot open the database in {}", config.data_dir.display()))?;
        let evidence = Journal::new(store.clone());
        let signer = Signer::open(&config.data_dir)
            .map_err(|why| anyhow!("cannot use the key that signs the journal: {why}"))?;
        let started = json!({ "version": env!("CARGO_PKG_VERSION"), "site": config.name });
        remark(&evidence, clock, "daemon.started", started).await;

        let mut tasks: Tasks = JoinSet::new();
        self.start(&mut tasks, &store, &evidence, &stop).await?;
        let keeping = journal::keep(evidence.clone(), signer.clone(), clock, stop.clone());
        tasks.spawn(async move {
            keeping.await;
            ("journal keeper", Ok(()))
        });
        tracing::info!(site = %config.name, "ready");
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("cannot tell the service manager")?;

        let outcome = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            ended = tasks.join_next() => Err(sentence(ended)),
        };
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!("some tasks did not end in time");
            tasks.shutdown().await;
        }
        let why = outcome.as_ref().err().map(ToString::to_string);
        remark(&evidence, clock, "daemon.stopped", json!({ "failure": why })).await;
        if let Err(error) = evidence.sign(&signer, clock.now().wall).await {
            tracing::warn!(%error, "the journal is not signed");
        }
        drop((evidence, store));
        writer.join();
        outcome
    }

    async fn start(
        self,
        tasks: &mut Tasks,
        store: &Store,
        evidence: &Journal,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let (config, clock) = (self.config, self.clock);
        let limits = store.read(grid::kept).await.context("cannot read the limits in force")?;
        let tariffs = store.read(tariff::keep::kept).await.context("cannot read the announced tariffs")?;
        let variables = store.read(variable::keep::kept).await.context("cannot read the variables")?;
        let failsafes = store.read(grid::failsafes).await.context("cannot read the failsafe values")?;
        let socket = api::bind(&config.api.socket)?;
        let lan = bound(self.lan, &config).await?;
        let sunspec = devices::sunspec(&config).await?;
        let listener = TcpListener::bind(config.ocpp.listen)
            .await
            .with_context(|| format!("cannot listen for EVSEs on {}", config.ocpp.listen))?;
        tracing::info!(address = %listener.local_addr()?, "EVSEs connect here");

        let (setpoints, setpoints_out): (Vec<_>, Vec<_>) =
            config.evses.iter().map(|_| watch::channel(None)).unzip();
        let (relays, relays_out): (Vec<_>, Vec<_>) =
            config.relays.iter().map(|_| watch::channel(false)).unzip();
        let (fresh, plans) = watch::channel(clock.now().mono);
        let (devices, devices_out): (Vec<_>, Vec<_>) =
            config.devices.iter().map(|_| watch::channel(Watts::ZERO)).unzip();
        let (control, site, events) = Control::new(control::Parts {
            config: Arc::clone(&config),
            limits,
            tariffs,
            variables,
            failsafes,
            store: store.clone(),
            journal: evidence.clone(),
            clock,
            setpoints,
            devices,
            relays,
            alive: alive(fresh, clock),
        });

        let token = stop.clone();
        tasks.spawn(async move {
            control.run(token).await;
            ("control", Ok(()))
        });
        let (wallboxes, setpoints_out, releases) = devices::split(&config, self.wallboxes, setpoints_out);
        let wired = Devices {
            config: &config,
            catalog: self.catalog,
            definitions: self.definitions,
            wallboxes,
            switches: self.switches,
            relays: relays_out,
            told: devices_out,
            plans,
            events: &events,
        };
        let desk = wired.start(tasks, clock, stop);
        let played = releases.iter().map(|(e, _)| *e);
        let (orders, stations, inboxes) = devices::stations(&config, setpoints_out, played, &self.ways);
        let gateway = ocpp::run(
            ocpp::Parts {
                config: config.ocpp.clone(),
                backend: config
                    .backend
                    .clone()
                    .zip(self.backend.clone().map(|dialer| Arc::new(dialer) as Arc<dyn Dial>)),
                stations,
                locals: locals::all(&config, &site, releases, inboxes, &self.ways),
                events,
                site: site.clone(),
                store: store.clone(),
                clock,
                listener,
                tls: self.evse_tls,
                schemas: self.schemas,
            },
            stop.clone(),
        );
        tasks.spawn(async move { ("OCPP gateway", gateway.await.map_err(Into::into)) });
        if let Some(uplink) = &self.uplink {
            keep_up(tasks, uplink, evidence, clock, stop);
        }
        if let Some((listener, of)) = sunspec {
            let node = config.nodes[of.node].id.clone();
            let task = sunspec::run(of, listener, site.clone(), node, stop.clone());
            tasks.spawn(async move { ("SunSpec server", task.await.map_err(Into::into)) });
        }
        let parts = api::Parts {
            config: config.api.clone(),
            site,
            uplink: self.uplink.as_ref().map(Uplink::status),
            way: self.uplink.map(|uplink| api::Way { uplink, backend: self.backend }),
            identities: Some(self.identities),
            updates: installing(tasks, &config, evidence, clock, stop),
            desk: Some(desk),
            orders,
            ledger: ocpp::ledger::Ledger::new(store.clone()),
            journal: evidence.clone(),
            clock,
        };
        serve(tasks, parts, socket, lan, self.operators, stop).await
    }
}

/// The way to the backend of each EVSE that has one of its own.
fn ways(
    config: &Config,
    uplink: Option<&Uplink>,
    source: &Source,
) -> Result<Vec<Option<Arc<dyn Dial>>>, ConfigError> {
    let way = |evse: &config::Evse| match (&evse.ocpp.backend, uplink) {
        (Some(backend), Some(uplink)) => {
            let dialer =
                BackendDialer::new(uplink, backend).map_err(|e| source.problem(e.field, e.problem))?;
            Ok(Some(Arc::new(dialer) as Arc<dyn Dial>))
        }
        _ => Ok(None),
    };
    config.evses.iter().map(way).collect()
}

/// What we are towards the EVSEs over TLS.
fn evse_tls(
    config: &config::Ocpp,
    clock: Clock,
    source: &Source,
) -> Result<Option<Arc<rustls::ServerConfig>>, ConfigError> {
    let Some(files) = &config.tls else { return Ok(None) };
    let own =
        identity::Identity::load(&files.certificate, &files.key, tls::Profile::Inner).map_err(|error| {
            match error {
                identity::IdentityError::Certificate(problem) => source.problem("ocpp.certificate", problem),
                identity::IdentityError::Key(problem) => source.problem("ocpp.key", problem),
            }
        })?;
    let issuers =
        files.ca.as_deref().map(tls::anchors).transpose().map_err(|e| source.problem("ocpp.ca", e))?;
    tls::evse_server(&own, issuers, clock).map(Some).map_err(|e| source.problem("ocpp.certificate", e))
}

/// The uplink's own life: renewal, separation, and its warnings for the journal.
fn keep_up(tasks: &mut Tasks, uplink: &Uplink, evidence: &Journal, clock: Clock, stop: &CancellationToken) {
    let (watched, token) = (warnings(uplink.status(), evidence.clone(), clock), stop.clone());
    tasks.spawn(async move {
        tokio::select! { () = watched => {}, () = token.cancelled() => {} }
        ("warnings of the uplink", Ok(()))
    });
    let running = uplink.clone().run(stop.clone());
    tasks.spawn(async move {
        running.await;
        ("uplink", Ok(()))
    });
}

/// The interface on the network, if there is one.
async fn bound(lan: Option<Lan>, config: &Config) -> anyhow::Result<Option<(TcpListener, Lan)>> {
    let (Some(lan), Some(at)) = (lan, &config.api.lan) else { return Ok(None) };
    let listener = lan.bind().await;
    let listener =
        listener.with_context(|| format!("cannot open the interface on the network at {}", at.listen))?;
    Ok(Some((listener, lan)))
}

/// The device's own software, where the configuration has it updated from here.
fn installing(
    tasks: &mut Tasks,
    config: &Config,
    evidence: &Journal,
    clock: Clock,
    stop: &CancellationToken,
) -> Option<update::Updates> {
    let (updates, installing) = update::updates(config.update.clone()?, evidence.clone(), clock);
    let running = installing.run(stop.clone());
    tasks.spawn(async move {
        running.await;
        ("updates", Ok(()))
    });
    Some(updates)
}

/// The interface, on everything that it is served on.
async fn serve(
    tasks: &mut Tasks,
    parts: api::Parts,
    socket: UnixListener,
    lan: Option<(TcpListener, Lan)>,
    operators: Option<Operators>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (path, journal, clock) = (parts.config.socket.clone(), parts.journal.clone(), parts.clock);
    let interface = api::Interface::new(parts, stop.clone()).await?;
    if let Some((listener, lan)) = lan {
        let task = lan.run(listener, interface.clone(), stop.clone());
        tasks.spawn(async move {
            task.await;
            ("API on the network", Ok(()))
        });
    }
    if let Some(operators) = operators {
        let task = operators.run(interface.clone(), journal, clock, stop.clone());
        tasks.spawn(async move {
            task.await;
            ("operators", Ok(()))
        });
    }
    tasks.spawn(async move {
        let served = interface.serve_socket(socket, &path).await;
        ("API", served.map_err(Into::into))
    });
    Ok(())
}

/// After each tick's plan: the wallboxes' watchdogs and the service manager's live on it.
fn alive(fresh: watch::Sender<Mono>, clock: Clock) -> Box<dyn FnMut() + Send> {
    let mut watchdog = watchdog();
    Box::new(move || {
        fresh.send_replace(clock.now().mono);
        watchdog();
    })
}

/// Feeds the service manager's watchdog, if there is one.
fn watchdog() -> Box<dyn FnMut() + Send> {
    if sd_notify::watchdog_enabled().is_none() {
        return Box::new(|| ());
    }
    Box::new(|| {
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            tracing::warn!(%error, "the watchdog was not fed");
        }
    })
}

async fn remark(journal: &Journal, clock: Clock, kind: &str, body: serde_json::Value) {
    let entry = Entry {
        at: clock.now().wall,
        kind: kind.to_owned(),
        subject: "ladewartd".to_owned(),
        actor: String::new(),
        body,
    };
    match journal.append(vec![entry]).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "{kind} is not in the journal"),
        Err(_) => tracing::error!("{kind} is not in the journal: the writer is gone"),
    }
}

/// Keeps each warning of the uplink once, when it comes up.
async fn warnings(mut status: watch::Receiver<smgw::Status>, journal: Journal, clock: Clock) {
    let mut told: Vec<String> = Vec::new();
    loop {
        let now = status.borrow_and_update().warnings.clone();
        for warning in now.iter().filter(|warning| !told.contains(warning)) {
            remark(&journal, clock, "uplink.warning", json!({ "warning": warning })).await;
        }
        told = now;
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Why the daemon ends although nobody asked.
fn sentence(
    ended: Option<Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>>,
) -> anyhow::Error {
    match ended {
        Some(Ok((task, Ok(())))) => anyhow!("the task \"{task}\" ended by itself"),
        Some(Ok((task, Err(error)))) => error.context(format!("the task \"{task}\" failed")),
        Some(Err(error)) => anyhow!("a task broke: {error}"),
        None => anyhow!("there was nothing to run"),
    }
}
