//! Wires what hangs on the site's wires: buses, meters, wallboxes, contacts, relays.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::{
    clock::Clock,
    config::{self, Config},
    contact, control,
    device::{
        Catalog, Definition,
        bus::Buses,
        definition::{DeviceKind, Protocol},
        desk::Desk,
    },
    evse::driver,
    meter, ocpp,
    plan::Setpoint,
    relay,
    smgw::Dial,
    time::Mono,
    units::Milliamps,
};

/// A definition that is used as what it is.
pub(super) fn of_kind(definition: Arc<Definition>, kind: DeviceKind) -> Result<Arc<Definition>, String> {
    if definition.kind == kind {
        return Ok(definition);
    }
    let word = |kind| match kind {
        DeviceKind::Meter => "meter",
        DeviceKind::Wallbox => "wallbox",
    };
    Err(format!("\"{}\" is a {}; name a {}", definition.name, word(definition.kind), word(kind)))
}

/// A definition whose protocol fits where the meter is.
pub(super) fn in_place(
    definition: Arc<Definition>,
    at: &config::Attachment,
) -> Result<Arc<Definition>, String> {
    let head = definition.protocol != Protocol::Modbus;
    match (head, matches!(at, config::Attachment::Port(_))) {
        (true, false) => Err(format!("\"{}\" is read through an optical head; say port", definition.name)),
        (false, true) => Err(format!("\"{}\" is on a bus; say address or bus", definition.name)),
        _ => Ok(definition),
    }
}

pub(super) type Wish = watch::Receiver<Option<Setpoint>>;
/// Index, what it is, what it may draw, whether it may charge at all.
pub(super) type Driven = (usize, Arc<Definition>, Wish, watch::Receiver<bool>);
/// Index, whether it may charge at all.
pub(super) type Release = (usize, watch::Sender<bool>);

/// Who is driven over a bus, who speaks OCPP, and whose release is another's business; each with its index.
pub(super) fn split(
    config: &Config,
    wallboxes: Vec<Option<Arc<Definition>>>,
    setpoints: Vec<Wish>,
) -> (Vec<Driven>, Vec<(usize, Wish)>, Vec<Release>) {
    let (mut driven, mut stations, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for (e, (definition, setpoint)) in wallboxes.into_iter().zip(setpoints).enumerate() {
        match definition {
            Some(definition) if config.evses[e].device.is_some() => {
                // Without a backend nobody asks who charges.
                let played = config.backend.is_some() || config.evses[e].ocpp.backend.is_some();
                let (release, released) = watch::channel(!played);
                if played {
                    held.push((e, release));
                }
                driven.push((e, definition, setpoint, released));
            }
            _ => stations.push((e, setpoint)),
        }
    }
    (driven, stations, held)
}

/// What hangs on buses.
pub(super) struct Devices<'a> {
    pub(super) config: &'a Arc<Config>,
    pub(super) catalog: Catalog,
    pub(super) definitions: Vec<Arc<Definition>>,
    pub(super) wallboxes: Vec<Driven>,
    pub(super) relays: Vec<watch::Receiver<bool>>,
    pub(super) plans: watch::Receiver<Mono>,
    pub(super) events: &'a control::Events,
}

impl Devices<'_> {
    /// Starts all of it; the desk is for who asks devices past the site.
    pub(super) fn start(self, tasks: &mut Tasks, clock: Clock, stop: &CancellationToken) -> Desk {
        let (caps, capped): (Vec<_>, Vec<_>) =
            self.config.evses.iter().map(|_| watch::channel(None::<Milliamps>)).unzip();
        let clearing = self.lines(tasks, clock, stop);
        let buses = Buses::new(self.config, stop, |task| {
            let stop = stop.clone();
            tasks.spawn(async move {
                task.await;
                // A bus that nothing hangs on has nothing to do.
                stop.cancelled().await;
                ("bus", Ok(()))
            });
        });
        for (m, definition) in self.config.meters.iter().zip(self.definitions) {
            let (config, events, stop) = (m.clone(), self.events.clone(), stop.clone());
            match (buses.at(&m.at), &m.at) {
                (_, config::Attachment::Port(port)) => {
                    let task = meter::push::run(config, definition, port.clone(), events, clock, stop);
                    tasks.spawn(async move {
                        task.await;
                        ("meter", Ok(()))
                    });
                }
                (Some(bus), _) => {
                    let task = meter::run(config, definition, bus, events, clock, stop);
                    tasks.spawn(async move {
                        task.await;
                        ("meter", Ok(()))
                    });
                }
                (None, _) => {}
            }
        }
        for (e, definition, setpoint, released) in self.wallboxes {
            let evse = self.config.evses[e].clone();
            let Some(device) = evse.device.clone() else { continue };
            let Some(bus) = buses.at(&device.at) else { continue };
            let parts = driver::Parts {
                evse,
                device,
                definition,
                bus,
                setpoint,
                released,
                cap: capped[e].clone(),
                fresh: self.plans.clone(),
                events: self.events.clone(),
                clock,
            };
            let task = driver::run(parts, stop.clone());
            tasks.spawn(async move {
                task.await;
                ("wallbox", Ok(()))
            });
        }
        Desk::new(Arc::clone(self.config), self.catalog, buses, caps, clearing)
    }

    /// Contacts and relays; the way to tell a relay that its contactor was seen to.
    fn lines(&self, tasks: &mut Tasks, clock: Clock, stop: &CancellationToken) -> Vec<watch::Sender<u64>> {
        for c in &self.config.contacts {
            let task = contact::run(c.clone(), self.events.clone(), clock, stop.clone());
            tasks.spawn(async move {
                task.await;
                ("contact", Ok(()))
            });
        }
        let (clearing, cleared): (Vec<_>, Vec<_>) =
            self.config.relays.iter().map(|_| watch::channel(0_u64)).unzip();
        for ((r, wanted), cleared) in self.config.relays.iter().zip(&self.relays).zip(cleared) {
            let (keep, events) = (self.config.data_dir.clone(), self.events.clone());
            let task = relay::run(r.clone(), wanted.clone(), cleared, keep, events, clock, stop.clone());
            tasks.spawn(async move {
                task.await;
                ("relay", Ok(()))
            });
        }
        clearing
    }
}

/// The EVSEs of the OCPP gateway, each with its setpoint and the way to its own backend; the way to all of them and to
/// those that are `played` here, and the ends of that for the latter.
pub(super) fn stations(
    config: &Config,
    setpoints: Vec<(usize, Wish)>,
    played: impl Iterator<Item = usize>,
    ways: &[Option<Arc<dyn Dial>>],
) -> (ocpp::Orders, Vec<ocpp::Station>, Vec<ocpp::orders::Inbox>) {
    let spoken = setpoints.iter().map(|(e, _)| *e).chain(played).map(|e| &config.evses[e].id);
    let (orders, mut inboxes) = ocpp::Orders::new(spoken);
    let others = inboxes.split_off(setpoints.len());
    let stations = setpoints.into_iter().zip(inboxes).map(|((e, setpoint), inbox)| {
        let evse = &config.evses[e];
        ocpp::Station {
            evse: evse.id.clone(),
            identity: evse.identity.clone(),
            settings: evse.clone(),
            way: ways.get(e).cloned().flatten(),
            setpoint,
            inbox,
        }
    });
    let stations = stations.collect();
    (orders, stations, others)
}

/// The port of the SunSpec server, where the configuration has one.
pub(super) async fn sunspec(config: &Config) -> anyhow::Result<Option<(TcpListener, config::SunSpec)>> {
    let Some(sunspec) = config.sunspec.clone() else { return Ok(None) };
    let listener = TcpListener::bind(sunspec.listen).await;
    let listener = listener.with_context(|| format!("cannot listen for SunSpec on {}", sunspec.listen))?;
    Ok(Some((listener, sunspec)))
}
