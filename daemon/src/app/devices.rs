//! Wires what hangs on the site's wires: buses, meters, wallboxes, contacts, relays.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::{
    clock::Clock,
    config::{self, Config, ConfigError, Source},
    contact, control,
    device::{
        Catalog, Definition,
        bus::Buses,
        definition::{DeviceKind, Protocol},
        desk::Desk,
        line::System,
        mqtt::Brokers,
        output,
        remote::{Switches, Way},
    },
    evse::driver,
    ids::RelayId,
    meter, ocpp,
    plan::Setpoint,
    relay,
    smgw::Dial,
    time::Mono,
    units::{Milliamps, Watts},
};

/// A definition that is used as what it is.
pub(super) fn of_kind(definition: Arc<Definition>, kind: DeviceKind) -> Result<Arc<Definition>, String> {
    if definition.kind == kind {
        return Ok(definition);
    }
    let word = |kind| match kind {
        DeviceKind::Meter => "meter",
        DeviceKind::Wallbox => "wallbox",
        DeviceKind::Switch => "switch",
    };
    Err(format!("\"{}\" is a {}; name a {}", definition.name, word(definition.kind), word(kind)))
}

/// A definition whose protocol fits where the meter is.
pub(super) fn in_place(
    definition: Arc<Definition>,
    at: &config::Attachment,
) -> Result<Arc<Definition>, String> {
    use config::Attachment as At;
    let wrong = |mend: &str| Err(format!("\"{}\" is {mend}", definition.name));
    match (definition.protocol, at) {
        (Protocol::Modbus, At::Address(_) | At::Bus(_))
        | (Protocol::Sml | Protocol::Iec, At::Port(_))
        | (Protocol::Http, At::Http(_))
        | (Protocol::Mqtt, At::Topic { .. }) => Ok(definition),
        (Protocol::Modbus, _) => wrong("on a bus; say address = \"host:port\" or bus"),
        (Protocol::Sml | Protocol::Iec, _) => wrong("read through an optical head; say port"),
        (Protocol::Http, _) => wrong("asked over HTTP; say address = \"http://host\""),
        (Protocol::Mqtt, _) => wrong("heard over MQTT; say broker and topic"),
    }
}

/// Relays that are switches in the network, each with its definition.
pub(super) fn switches(
    config: &Config,
    catalog: &Catalog,
    source: &Source,
) -> Result<Vec<(RelayId, Arc<Definition>, config::Attachment)>, ConfigError> {
    let mut switches = Vec::new();
    for (i, relay) in config.relays.iter().enumerate() {
        let config::Line::Switch { definition, at, .. } = &relay.line else { continue };
        let wrong = |problem: String| source.problem(&format!("relay[{i}].line.switch"), problem);
        let found = catalog.find(definition).map_err(|e| wrong(e.to_string()))?;
        let found = of_kind(found, DeviceKind::Switch).and_then(|d| in_place(d, at)).map_err(wrong)?;
        switches.push((relay.id.clone(), found, at.clone()));
    }
    Ok(switches)
}

/// Time for the last words; below the time in which all tasks must end.
const LAST_WORDS: Duration = Duration::from_secs(3);

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

/// Cancelled after `stop`, when all who have something to say have said it or their time is over.
fn last_words(
    tasks: &mut Tasks,
    mut spoken: mpsc::Receiver<()>,
    stop: &CancellationToken,
) -> CancellationToken {
    let later = CancellationToken::new();
    let (stop, token) = (stop.clone(), later.clone());
    tasks.spawn(async move {
        stop.cancelled().await;
        let _ = timeout(LAST_WORDS, spoken.recv()).await;
        token.cancel();
        ("last words on the buses", Ok(()))
    });
    later
}

/// What hangs on buses.
pub(super) struct Devices<'a> {
    pub(super) config: &'a Arc<Config>,
    pub(super) catalog: Catalog,
    pub(super) definitions: Vec<Arc<Definition>>,
    pub(super) wallboxes: Vec<Driven>,
    pub(super) switches: Vec<(RelayId, Arc<Definition>, config::Attachment)>,
    pub(super) relays: Vec<watch::Receiver<bool>>,
    /// What each device that is told a power may draw.
    pub(super) told: Vec<watch::Receiver<Watts>>,
    pub(super) plans: watch::Receiver<Mono>,
    pub(super) events: &'a control::Events,
}

impl Devices<'_> {
    /// Starts all of it; the desk is for who asks devices past the site.
    pub(super) fn start(mut self, tasks: &mut Tasks, clock: Clock, stop: &CancellationToken) -> Desk {
        let (caps, capped): (Vec<_>, Vec<_>) =
            self.config.evses.iter().map(|_| watch::channel(None::<Milliamps>)).unzip();
        let brokers = Brokers::new(self.config, stop, |task| {
            tasks.spawn(async move {
                task.await;
                ("broker", Ok(()))
            });
        });
        let switches = self.remote(tasks, &brokers, stop);
        let clearing = self.lines(tasks, &switches, clock, stop);
        // The buses carry the last words of those who are told a power.
        let (speaking, spoken) = mpsc::channel(1);
        let later = last_words(tasks, spoken, stop);
        let buses = Buses::new(self.config, &later, |task| {
            let later = later.clone();
            tasks.spawn(async move {
                task.await;
                // A bus that nothing hangs on has nothing to do.
                later.cancelled().await;
                ("bus", Ok(()))
            });
        });
        for (device, wanted) in self.config.devices.iter().zip(std::mem::take(&mut self.told)) {
            let Some(register) = device.setpoint.clone() else { continue };
            let Some(bus) = buses.at(&register.at) else { continue };
            let task =
                output::run(device.id.clone(), register, bus, wanted, self.events.clone(), stop.clone());
            let speaking = speaking.clone();
            tasks.spawn(async move {
                task.await;
                drop(speaking);
                ("device", Ok(()))
            });
        }
        drop(speaking);
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
                (None, config::Attachment::Http(address)) => {
                    let task =
                        meter::document::asked(config, definition, address.clone(), events, clock, stop);
                    tasks.spawn(async move {
                        task.await;
                        ("meter", Ok(()))
                    });
                }
                (None, at) => {
                    let Some((broker, topic)) = brokers.at(at) else { continue };
                    let way = (broker, topic.to_owned());
                    let task = meter::document::listened(config, definition, way, events, clock, stop);
                    tasks.spawn(async move {
                        task.await;
                        ("meter", Ok(()))
                    });
                }
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
        Desk::new(Arc::clone(self.config), self.catalog, buses, caps, clearing, clock)
    }

    /// The switches in the network.
    fn remote(&mut self, tasks: &mut Tasks, brokers: &Brokers, stop: &CancellationToken) -> Switches {
        let way = |at: &config::Attachment| match at {
            config::Attachment::Http(address) => Some(Way::Http(address.clone())),
            at => brokers.at(at).map(|(broker, topic)| Way::Mqtt(broker, topic.to_owned())),
        };
        let known = std::mem::take(&mut self.switches);
        let known = known.into_iter().filter_map(|(id, d, at)| Some((id, d, way(&at)?))).collect();
        Switches::new(known, stop, |task| {
            tasks.spawn(async move {
                task.await;
                ("switch", Ok(()))
            });
        })
    }

    /// Contacts and relays; the way to tell a relay that its contactor was seen to.
    fn lines(
        &self,
        tasks: &mut Tasks,
        switches: &Switches,
        clock: Clock,
        stop: &CancellationToken,
    ) -> Vec<watch::Sender<u64>> {
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
            let board = System { switches: switches.clone() };
            let told = relay::Told { wanted: wanted.clone(), cleared };
            let task = relay::run(r.clone(), board, told, keep, events, clock, stop.clone());
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
