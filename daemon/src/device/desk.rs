//! The installer's desk: devices asked past the site.
//!
//! In: names of the configuration. Out: what devices answer. Invariant: nothing here raises what a wallbox may draw; the
//! buses serve setpoints first, whoever scans.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Catalog, Definition, Quantity, Reader,
    bus::{Ask, Bus, BusError, Buses, Class, Request},
    definition::{
        DeviceKind,
        document::{DocumentError, Telling},
    },
    http::Client,
};
use crate::{
    clock::Clock,
    config::{Attachment, Config},
    ids::{EvseId, RelayId},
    meter::{self, document},
    units::Milliamps,
};

/// How long one request may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a unit of a bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub unit: u8,
    /// Whether anything answered.
    pub answers: bool,
    /// The definitions whose probe fits.
    pub definitions: Vec<String>,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    catalog: Catalog,
    buses: Buses,
    caps: Vec<watch::Sender<Option<Milliamps>>>,
    clearing: Vec<watch::Sender<u64>>,
    clock: Clock,
}

/// A device that is read past the site.
#[derive(Debug)]
pub enum Asked {
    /// On a bus.
    Bus(Reader),
    /// Over HTTP.
    Http(Client, Telling, Arc<Definition>),
}

/// A quantity and its value in its base unit, or why it cannot be believed.
pub type Shown = (Quantity, Result<f64, String>);

/// Holds a wallbox down while it lives.
#[derive(Debug)]
pub struct Cap {
    desk: Desk,
    evse: usize,
}

impl Drop for Cap {
    fn drop(&mut self) {
        self.desk.0.caps[self.evse].send_replace(None);
    }
}

impl Desk {
    /// `caps` and `clearing`: one per EVSE and per relay of the configuration.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        catalog: Catalog,
        buses: Buses,
        caps: Vec<watch::Sender<Option<Milliamps>>>,
        clearing: Vec<watch::Sender<u64>>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner { config, catalog, buses, caps, clearing, clock }))
    }

    /// The site's configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// A bus by its name or address.
    pub fn bus(&self, name: &str) -> Result<Bus, String> {
        let config = &self.0.config;
        let at = match config.buses.iter().position(|b| b.id == name) {
            Some(index) => Attachment::Bus(index),
            None => Attachment::Address(name.to_owned()),
        };
        self.0.buses.at(&at).ok_or_else(|| {
            let mut known: Vec<String> = config.buses.iter().map(|b| b.id.clone()).collect();
            known.extend(self.0.buses.addresses().map(str::to_owned));
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("there is no bus {name:?}; there are {known}")
        })
    }

    /// Asks one unit what it is.
    pub async fn look(&self, bus: &Bus, unit: u8) -> Found {
        let mut found = Found { unit, answers: false, definitions: Vec::new() };
        let mut asked: Vec<(Request, Option<Vec<u16>>)> = Vec::new();
        for definition in self.0.catalog.iter().filter(|d| d.sunspec.is_none()) {
            let Some(probe) = definition.probe else { continue };
            let request = Request::Read {
                function: probe.function,
                start: probe.register,
                count: probe.form.registers(),
            };
            let known = asked.iter().find(|(r, _)| *r == request).map(|(_, answer)| answer.clone());
            let answer = match known {
                Some(answer) => answer,
                None => {
                    let rest = definition.frame_delay;
                    let ask = Ask {
                        unit,
                        request: request.clone(),
                        class: Class::Reading,
                        rest,
                        patience: PATIENCE,
                    };
                    let answer = match bus.call(ask).await {
                        Ok(registers) => {
                            found.answers = true;
                            Some(registers)
                        }
                        Err(BusError::Exception { code, .. }) => {
                            // A gateway that reaches nobody answers, too.
                            found.answers |= !matches!(code, 10 | 11);
                            None
                        }
                        // Nobody there: the other probes need not be tried.
                        Err(_) if !found.answers => return found,
                        Err(_) => None,
                    };
                    asked.push((request, answer.clone()));
                    answer
                }
            };
            let Some(registers) = answer else { continue };
            let number = probe.form.number(probe.form.bits(&registers, probe.order));
            if probe.window.holds(number) {
                found.definitions.push(definition.name.clone());
            }
        }
        for definition in self.0.catalog.iter().filter(|d| d.sunspec.is_some()) {
            let mut reader = Reader::new(Arc::clone(definition), bus.clone(), Some(unit), PATIENCE);
            if found.answers && reader.first().await.is_ok() {
                found.definitions.push(definition.name.clone());
            }
        }
        found
    }

    /// A configured meter or wallbox.
    pub fn reader(&self, id: &str) -> Result<Reader, String> {
        let config = &self.0.config;
        let meter = config.meters.iter().find(|m| m.id.as_str() == id);
        let evse = config.evses.iter().find(|e| e.id.as_str() == id);
        let (name, at, unit) = match (meter, evse.map(|e| &e.device)) {
            (Some(meter), _) => (&meter.device, &meter.at, meter.unit),
            (None, Some(Some(device))) => (&device.definition, &device.at, device.unit),
            (None, Some(None)) => return Err(format!("EVSE {id:?} speaks OCPP; it is not on a bus")),
            (None, None) => return Err(format!("there is neither a meter nor an EVSE {id:?}")),
        };
        let definition = self.0.catalog.find(name).map_err(|e| e.to_string())?;
        let bus = self.0.buses.at(at).ok_or_else(|| {
            format!("{id:?} is on no bus: `ladewartctl meter list` shows what it said last")
        })?;
        Ok(Reader::new(definition, bus, unit, PATIENCE))
    }

    /// A configured meter or wallbox, to be read.
    pub fn asked(&self, id: &str) -> Result<Asked, String> {
        let meter = self.0.config.meters.iter().find(|m| m.id.as_str() == id);
        if let Some((meter, Attachment::Http(address))) = meter.map(|m| (m, &m.at)) {
            let definition = self.0.catalog.find(&meter.device).map_err(|e| e.to_string())?;
            let Some(telling) = definition.telling.clone() else {
                return Err(format!("\"{}\" is not asked over HTTP", definition.name));
            };
            let client = Client::new(address.clone(), telling.answer);
            return Ok(Asked::Http(client, telling, definition));
        }
        self.reader(id).map(Asked::Bus)
    }

    /// Every value of a device, or why there is none.
    pub async fn values(&self, asked: &mut Asked) -> Result<Vec<Shown>, String> {
        match asked {
            Asked::Bus(reader) => {
                let registers = reader.blocks().await.map_err(|e| e.to_string())?;
                let values = meter::values(reader.definition(), &registers).map_err(|e| e.to_string())?;
                Ok(values.into_iter().map(|(q, v)| (q, v.map_err(|e| e.to_string()))).collect())
            }
            Asked::Http(client, telling, definition) => {
                let values = document::ask(client, telling, self.0.clock).await.map_err(|e| e.to_string())?;
                let judged = |(q, v): (Quantity, Result<f64, DocumentError>)| {
                    let value = v.map_err(|e| e.to_string());
                    (q, value.and_then(|v| document::plausible(definition, q, v).map_err(|e| e.to_string())))
                };
                Ok(values.into_iter().map(judged).collect())
            }
        }
    }

    /// Holds a wallbox down to `current` until the [`Cap`] is dropped.
    pub fn cap(&self, evse: &EvseId, current: Milliamps) -> Result<Cap, String> {
        let config = &self.0.config;
        let index = config.evses.iter().position(|e| e.id == *evse);
        let index = index.ok_or_else(|| format!("there is no EVSE {evse}"))?;
        if config.evses[index].device.is_none() {
            return Err(format!("EVSE {evse} speaks OCPP; it is not on a bus"));
        }
        self.0.caps[index].send_replace(Some(current));
        Ok(Cap { desk: self.clone(), evse: index })
    }

    /// What the register of a wallbox's setpoint reads.
    pub async fn setpoint(&self, reader: &Reader) -> Result<Option<Milliamps>, String> {
        let Some(wallbox) = &reader.definition().wallbox else { return Ok(None) };
        let Some(request) = wallbox.setpoint.read_back() else { return Ok(None) };
        let registers = reader.ask(request, Class::Reading).await.map_err(|e| e.to_string())?;
        Ok(Some(wallbox.current_of(&registers)))
    }

    /// Tells a relay that its contactor was seen to.
    pub fn clear(&self, relay: &RelayId) -> Result<(), String> {
        let index = self.0.config.relays.iter().position(|r| r.id == *relay);
        let index = index.ok_or_else(|| format!("there is no relay {relay}"))?;
        self.0.clearing[index].send_modify(|n| *n += 1);
        Ok(())
    }

    /// The definition of a wallbox that the configuration names.
    #[must_use]
    pub fn wallbox(&self, evse: usize) -> Option<Arc<Definition>> {
        let device = self.0.config.evses.get(evse)?.device.as_ref()?;
        self.0.catalog.find(&device.definition).ok().filter(|d| d.kind == DeviceKind::Wallbox)
    }
}
