//! Document → [`Config`]: names resolved to indices, ranges checked, defaults filled in.

mod access;
mod charging;
mod device;
mod lines;
mod ocpp;
mod tree;
mod uplink;

use std::{collections::HashSet, fs, path::Path, time::Duration};

use self::ocpp::CheckedOcpp;
use super::{Broker, Bus, Config, ConfigError, Control, Evse, Meter, Node, Source, Update, Uplink, raw};
use crate::{
    ids::Identity,
    units::{Milliamps, Wiring},
};

/// Reads and checks a configuration file. The [`Source`] serves errors that show up later, e.g. in a key file.
pub fn load(file: &Path) -> Result<(Config, Source), ConfigError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => {
            return Err(Source::new(file.to_owned(), String::new()).whole(format!("cannot be read: {e}")));
        }
    };
    let source = Source::new(file.to_owned(), text);
    let config = parse(&source)?;
    Ok((config, source))
}

/// Checks a configuration that was read; relative paths in it start from the source's directory.
pub fn parse(source: &Source) -> Result<Config, ConfigError> {
    let document: raw::Document = toml::from_str(source.text()).map_err(|e| source.parse_error(&e))?;
    Check { source }.document(document)
}

struct Check<'a> {
    source: &'a Source,
}

type Checked<T> = Result<T, ConfigError>;

impl Check<'_> {
    fn fail<T>(&self, field: &str, problem: impl std::fmt::Display) -> Checked<T> {
        Err(self.source.problem(field, problem))
    }

    fn document(&self, doc: raw::Document) -> Checked<Config> {
        let at_home = |path: std::path::PathBuf| self.source.directory().join(path);
        let buses = self.buses(doc.bus)?;
        let brokers = self.brokers(doc.broker)?;
        let meters = self.meters(doc.meter, &buses, &brokers)?;
        let written: Vec<_> = doc.node.iter().map(|n| n.id.clone()).collect();
        let nodes = self.nodes(&doc.node, &meters)?;
        let ocpp = self.ocpp(doc.ocpp)?;
        let uplink = doc.uplink.map(|u| self.uplink(u)).transpose()?;
        let evses = self.evses(doc.evse, &nodes, &buses, &ocpp, uplink.as_ref())?;
        let contacts = self.contacts(doc.contact, &nodes)?;
        let devices = self.devices(doc.device, &nodes, &meters, &buses)?;
        let relays = self.relays(doc.relay, &evses, &devices, &contacts, &brokers)?;
        let grid = self.grid(doc.grid, &nodes)?;
        self.tree_fits(&written, &nodes, &evses, &devices, &relays)?;
        let charging = self.charging(
            charging::Tables {
                tariff: doc.tariff,
                variables: doc.variable,
                limits: doc.limit,
                users: doc.user,
                rules: doc.rule,
            },
            &charging::Parts {
                nodes: &nodes,
                meters: &meters,
                evses: &evses,
                contacts: &contacts,
                relays: &relays,
            },
        )?;
        let backend = doc.backend.map(|b| self.backend("backend", b)).transpose()?;
        if let Some(backend) = &backend {
            self.way_to("backend", backend, uplink.as_ref())?;
        }
        let (site, controller) = (&ocpp.ocpp.site, &ocpp.ocpp.controller);
        for (field, identity) in [("ocpp.site", site), ("ocpp.controller", controller)] {
            let Some(identity) = identity else { continue };
            if backend.is_none() {
                return self.fail(field, "has no meaning without [backend]; remove it");
            }
            if evses.iter().any(|e| e.identity == *identity) {
                return self
                    .fail(field, format!("\"{identity}\" is the identity of an EVSE; choose another"));
            }
        }
        if controller.is_some() && site == controller {
            return self.fail("ocpp.controller", "is the identity of ocpp.site; choose another");
        }
        let api = self.api(doc.api)?;
        let operators = self.operators(doc.operator, &api.certificates, uplink.as_ref(), backend.as_ref())?;
        if doc.site.name.trim().is_empty() {
            return self.fail("site.name", "is empty; name the site for the people who read its evidence");
        }
        let sunspec = doc.sunspec.map(|s| self.sunspec(s, &nodes)).transpose()?;
        Ok(Config {
            sunspec,
            name: doc.site.name,
            api,
            data_dir: at_home(doc.site.data.unwrap_or_else(|| "/var/lib/ladewart".into())),
            uplink,
            backend,
            operators,
            ocpp: ocpp.ocpp,
            control: self.control(&doc.control)?,
            nodes,
            buses,
            brokers,
            meters,
            device_dir: doc.site.devices.map(at_home),
            evses,
            devices,
            grid,
            contacts,
            relays,
            charging,
            update: doc.update.map(|update| Update {
                spool: at_home(update.spool),
                most: update.most.unwrap_or(96 << 20),
                confirmed: update.confirmed.map(at_home),
                restart: update.restart.map(at_home),
                reason: update.reason.map(at_home),
            }),
        })
    }

    fn duration(
        &self,
        field: &str,
        given: Option<raw::Span>,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Checked<Duration> {
        let value = given.map_or(default, |s| s.0);
        if value < least || value > most {
            return self.fail(field, format!("{value:?} is out of range; use {least:?} to {most:?}"));
        }
        Ok(value)
    }

    fn control(&self, raw: &raw::Control) -> Checked<Control> {
        let ms = Duration::from_millis;
        let s = Duration::from_secs;
        let control = Control {
            lease: self.duration("control.lease", raw.lease, s(60), s(2), s(900))?,
            raise_dwell: self.duration("control.raise_dwell", raw.raise_dwell, s(10), ms(0), s(600))?,
            settle: self.duration("control.settle", raw.settle, s(5), ms(100), s(60))?,
            min_on: self.duration("control.min_on", raw.min_on, s(600), s(0), s(7200))?,
            min_off: self.duration("control.min_off", raw.min_off, s(30), s(0), s(3600))?,
            ramp: self.ramp(raw.ramp)?,
            follow_after: self.duration("control.follow_after", raw.follow_after, s(60), s(5), s(3600))?,
            probe_every: self.duration("control.probe_every", raw.probe_every, s(300), s(10), s(7200))?,
            wake_every: self.duration("control.wake_every", raw.wake_every, s(1800), s(10), s(7200))?,
            meter_stale: self.duration("control.meter_stale", raw.meter_stale, s(5), ms(500), s(60))?,
            meter_lost: self.duration("control.meter_lost", raw.meter_lost, s(30), s(1), s(600))?,
        };
        if control.meter_lost <= control.meter_stale {
            return self.fail("control.meter_lost", "must be longer than control.meter_stale");
        }
        Ok(control)
    }

    fn required<T>(&self, field: &str, given: Option<T>, example: &str) -> Checked<T> {
        match given {
            Some(value) => Ok(value),
            None => {
                let name = field.rsplit('.').next().unwrap_or(field);
                self.fail(field, format!("is missing; add {name} = {example}"))
            }
        }
    }

    /// The path from the document's directory; the file must be readable.
    fn file(&self, field: &str, path: &Path) -> Checked<std::path::PathBuf> {
        let path = self.source.directory().join(path);
        match fs::File::open(&path).and_then(|f| f.metadata()) {
            Ok(meta) if meta.is_file() => Ok(path),
            Ok(_) => self.fail(field, format!("{} is not a file", path.display())),
            Err(e) => self.fail(field, format!("{} cannot be read: {e}", path.display())),
        }
    }

    fn host_port(&self, field: &str, text: &str) -> Checked<(String, u16)> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let port = port.parse::<u16>().ok().filter(|p| *p != 0)?;
            (!host.is_empty()).then(|| (host.to_owned(), port))
        });
        match parsed {
            Some(pair) => Ok(pair),
            None => self.fail(field, format!("{text:?} is not host:port; write it like \"192.0.2.1:8443\"")),
        }
    }

    fn meters(&self, raw: Vec<raw::Meter>, buses: &[Bus], brokers: &[Broker]) -> Checked<Vec<Meter>> {
        let mut seen = HashSet::new();
        let mut meters = Vec::with_capacity(raw.len());
        for (i, m) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("meter[{i}].{name}");
            if !seen.insert(m.id.clone()) {
                return self.fail(&at("id"), format!("\"{}\" names another meter already", m.id));
            }
            let place = raw::MeterPlace {
                address: m.address,
                bus: m.bus,
                port: m.port,
                broker: m.broker,
                topic: m.topic,
            };
            meters.push(Meter {
                id: m.id,
                device: m.device,
                at: self.meter_at(i, place, buses, brokers)?,
                unit: m.unit,
                interval: self.duration(
                    &at("interval"),
                    m.interval,
                    Duration::from_secs(1),
                    Duration::from_millis(100),
                    Duration::from_secs(60),
                )?,
                inverted: m.inverted,
            });
        }
        Ok(meters)
    }

    fn evses(
        &self,
        raw: Vec<raw::Evse>,
        nodes: &[Node],
        buses: &[Bus],
        ocpp: &CheckedOcpp,
        uplink: Option<&Uplink>,
    ) -> Checked<Vec<Evse>> {
        let mut evses: Vec<Evse> = Vec::with_capacity(raw.len());
        for (i, e) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("evse[{i}].{name}");
            let identity = e.identity.unwrap_or_else(|| Identity::new(e.id.as_str()));
            if let Some(other) = evses.iter().find(|other| other.id == e.id) {
                return self.fail(&at("id"), format!("\"{}\" names another EVSE already", other.id));
            }
            if let Some(other) = evses.iter().find(|other| other.identity == identity) {
                return self.fail(
                    &at("identity"),
                    format!(
                        "\"{identity}\" is the identity of EVSE \"{}\" already; each needs its own",
                        other.id
                    ),
                );
            }
            let min = e.min.unwrap_or(Milliamps::amps(6));
            let step = e.step.unwrap_or(Milliamps::amps(1));
            let failsafe = e.failsafe.unwrap_or(Milliamps::amps(6));
            if !(Milliamps::amps(6)..=Milliamps::amps(80)).contains(&min) {
                return self.fail(&at("min"), format!("{min} is out of range; IEC 61851-1 begins at 6 A"));
            }
            if !(min..=Milliamps::amps(500)).contains(&e.max) {
                return self
                    .fail(&at("max"), format!("{} is out of range; use {min} to 500 A per phase", e.max));
            }
            if !(Milliamps(100)..=Milliamps::amps(6)).contains(&step) {
                return self.fail(&at("step"), format!("{step} is out of range; use 0.1 A to 6 A"));
            }
            if failsafe != Milliamps::ZERO && !(min..=e.max).contains(&failsafe) {
                return self.fail(
                    &at("failsafe"),
                    format!("{failsafe} is neither 0 A nor within {min} to {}", e.max),
                );
            }
            let ocpp = self.evse_ocpp(i, e.ocpp, ocpp, uplink)?;
            if ocpp.pass_through && failsafe != e.max {
                return self.fail(
                    &at("failsafe"),
                    format!(
                        "no limit reaches an EVSE on its own (ocpp.pass_through): it may draw {} at any time; write \
                         failsafe = \"{}\"",
                        e.max, e.max
                    ),
                );
            }
            evses.push(Evse {
                id: e.id,
                identity,
                node: self.node(&at("node"), e.node.map(|n| n.0), nodes)?,
                wiring: e.phases.unwrap_or(Wiring::L123),
                max: e.max,
                min,
                step,
                failsafe,
                device: e.device.map(|d| self.device(&at("device"), d, buses)).transpose()?,
                class: e.class.unwrap_or(100),
                weight: self.weight(&at("weight"), e.weight)?,
                public: e.public,
                ocpp,
            });
        }
        Ok(evses)
    }
}
