//! Buses, and what hangs on them.

use std::time::Duration;

use super::{Check, Checked};
use crate::{
    config::{Attachment, Broker, Bus, EvseDevice, Node, SunSpec, raw},
    device::bus::{Port, frame::Mode, serial::Parity, tty},
    ids::MAX_NAME,
    units::Watts,
};

impl Check<'_> {
    pub(super) fn buses(&self, raw: Vec<raw::Bus>) -> Checked<Vec<Bus>> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let mut buses: Vec<Bus> = Vec::with_capacity(raw.len());
        for (i, b) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("bus[{i}].{name}");
            if b.id.is_empty() || b.id.len() > MAX_NAME {
                return self
                    .fail(&at("id"), format!("{:?} is not a name; use 1 to {MAX_NAME} characters", b.id));
            }
            let path = self.source.directory().join(&b.port);
            for other in &buses {
                if other.id == b.id {
                    return self.fail(&at("id"), format!("\"{}\" names another bus already", b.id));
                }
                if other.port.path == path {
                    let problem = format!("{} is the port of bus \"{}\" already", path.display(), other.id);
                    return self.fail(&at("port"), problem);
                }
            }
            let baud = b.baud.unwrap_or(19_200);
            if !tty::knows(baud) {
                return self.fail(
                    &at("baud"),
                    format!(
                        "{baud} is not a speed; use 1200, 2400, 4800, 9600, 19200, 38400, 57600 or 115200"
                    ),
                );
            }
            let parity = b.parity.unwrap_or(Parity::Even);
            let mode = match b.mode.unwrap_or(raw::BusMode::Rtu) {
                raw::BusMode::Rtu => Mode::Rtu,
                raw::BusMode::Ascii => Mode::Ascii,
            };
            let data_bits = b.data_bits.unwrap_or(8);
            if !(data_bits == 8 || (data_bits == 7 && mode == Mode::Ascii)) {
                return self
                    .fail(&at("data_bits"), format!("{data_bits} does not fit; use 8, or 7 with ascii"));
            }
            let stop_bits = b.stop_bits.unwrap_or(if parity == Parity::None { 2 } else { 1 });
            if !(1..=2).contains(&stop_bits) {
                return self.fail(&at("stop_bits"), format!("{stop_bits} is out of range; use 1 or 2"));
            }
            let answer = self.duration(&at("answer"), b.answer, ms(500), ms(20), s(5))?;
            let late = self.duration(&at("late"), b.late, answer * 2, answer, s(20))?;
            buses.push(Bus {
                id: b.id,
                port: Port { path, mode, baud, parity, data_bits, stop_bits, answer, late },
            });
        }
        Ok(buses)
    }

    pub(super) fn brokers(&self, raw: Vec<raw::Broker>) -> Checked<Vec<Broker>> {
        let mut brokers: Vec<Broker> = Vec::with_capacity(raw.len());
        for (i, b) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("broker[{i}].{name}");
            if b.id.is_empty() || b.id.len() > MAX_NAME {
                return self
                    .fail(&at("id"), format!("{:?} is not a name; use 1 to {MAX_NAME} characters", b.id));
            }
            if brokers.iter().any(|other| other.id == b.id) {
                return self.fail(&at("id"), format!("\"{}\" names another broker already", b.id));
            }
            let (host, port) = self.host_port(&at("address"), &b.address)?;
            let login = match (b.user, self.secret(&at("password_file"), b.password_file)?) {
                (Some(user), Some(password)) => Some((user, password)),
                (None, None) => None,
                (Some(_), None) => return self.fail(&at("password_file"), "is missing; user stands there"),
                (None, Some(_)) => return self.fail(&at("user"), "is missing; password_file stands there"),
            };
            brokers.push(Broker { id: b.id, host, port, login });
        }
        Ok(brokers)
    }

    /// A device's own topic.
    pub(super) fn topic(
        &self,
        at: &str,
        broker: &str,
        topic: String,
        brokers: &[Broker],
    ) -> Checked<Attachment> {
        let Some(index) = brokers.iter().position(|b| b.id == broker) else {
            let problem = format!("there is no [[broker]] with id = \"{broker}\"");
            return self.fail(&format!("{at}.broker"), problem);
        };
        if topic.is_empty() || topic.len() > 1000 || topic.contains(['+', '#', '\0']) || topic.ends_with('/')
        {
            let problem = format!("{topic:?} is not one topic; use no + and #, and no / at its end");
            return self.fail(&format!("{at}.topic"), problem);
        }
        Ok(Attachment::Topic { broker: index, topic })
    }

    /// Where an HTTP device is: `http://host` or `http://host:port`.
    fn http(&self, field: &str, url: &str) -> Checked<Attachment> {
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if url.starts_with("https://") {
            return self.fail(field, "is over TLS, which is not supported; devices are asked over http://");
        }
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            let problem =
                format!("{url:?} is not an address; write it like \"http://10.0.0.8\", without a path");
            return self.fail(field, problem);
        }
        let ported = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if ported { host.to_owned() } else { format!("{host}:80") };
        self.host_port(field, &address)?;
        Ok(Attachment::Http(address))
    }

    /// One of the ways to a device.
    pub(super) fn attachment(
        &self,
        at: &str,
        address: Option<String>,
        bus: Option<String>,
        buses: &[Bus],
    ) -> Checked<Attachment> {
        match (address, bus) {
            (Some(address), None) if address.starts_with("http") && address.contains("://") => {
                self.http(&format!("{at}.address"), &address)
            }
            (Some(address), None) => {
                self.host_port(&format!("{at}.address"), &address)?;
                Ok(Attachment::Address(address))
            }
            (None, Some(name)) => match buses.iter().position(|b| b.id == name) {
                Some(index) => Ok(Attachment::Bus(index)),
                None => self.fail(&format!("{at}.bus"), format!("there is no [[bus]] with id = \"{name}\"")),
            },
            (Some(_), Some(_)) => {
                self.fail(&format!("{at}.bus"), "stands beside address; a device is in one place")
            }
            (None, None) => self.fail(
                &format!("{at}.address"),
                "is missing; add address = \"10.0.0.5:502\" (Modbus TCP), bus with the name of a [[bus]], or address = \"http://10.0.0.8\"",
            ),
        }
    }

    /// One of the ways to a meter.
    pub(super) fn meter_at(
        &self,
        i: usize,
        raw: raw::MeterPlace,
        buses: &[Bus],
        brokers: &[Broker],
    ) -> Checked<Attachment> {
        let raw::MeterPlace { address, bus, port, broker, topic } = raw;
        match (broker, topic) {
            (None, None) => {}
            (Some(broker), Some(topic)) if address.is_none() && bus.is_none() && port.is_none() => {
                return self.topic(&format!("meter[{i}]"), &broker, topic, brokers);
            }
            (Some(_), Some(_)) => {
                let problem = "stands beside address, bus or port; a meter is in one place";
                return self.fail(&format!("meter[{i}].broker"), problem);
            }
            (None, Some(_)) => {
                return self.fail(&format!("meter[{i}].broker"), "is missing; topic stands there");
            }
            (Some(_), None) => {
                let problem = "is missing; name the device's own topic at the broker";
                return self.fail(&format!("meter[{i}].topic"), problem);
            }
        }
        match (port, &address, &bus) {
            (Some(port), None, None) => {
                let port = self.source.directory().join(port);
                match buses.iter().find(|b| b.port.path == port) {
                    Some(bus) => {
                        let problem = format!("is the port of bus \"{}\" already", bus.id);
                        self.fail(&format!("meter[{i}].port"), problem)
                    }
                    None => Ok(Attachment::Port(port)),
                }
            }
            (Some(_), ..) => self
                .fail(&format!("meter[{i}].port"), "stands beside address or bus; a meter is in one place"),
            (None, ..) => self.attachment(&format!("meter[{i}]"), address, bus, buses),
        }
    }

    pub(super) fn device(&self, at: &str, raw: raw::EvseDevice, buses: &[Bus]) -> Checked<EvseDevice> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        if let Some(card) = raw.card.as_ref().filter(|c| c.is_empty() || c.chars().count() > 20) {
            return self.fail(&format!("{at}.card"), format!("{card:?} is no card; use 1 to 20 characters"));
        }
        let place = self.attachment(at, raw.address, raw.bus, buses)?;
        if matches!(place, Attachment::Http(_)) {
            return self.fail(&format!("{at}.address"), "is not host:port; wallboxes are driven by Modbus");
        }
        Ok(EvseDevice {
            definition: raw.definition,
            at: place,
            unit: raw.unit,
            interval: self.duration(&format!("{at}.interval"), raw.interval, s(1), ms(100), s(10))?,
            failsafe: raw.failsafe,
            card: raw.card,
        })
    }

    pub(super) fn sunspec(&self, raw: raw::SunSpec, nodes: &[Node]) -> Checked<SunSpec> {
        if !(Watts(1000)..=Watts(2_000_000)).contains(&raw.full) {
            return self.fail(
                "sunspec.full",
                format!("{} is out of range; use 1 kW to 2000 kW for 100 %", raw.full),
            );
        }
        let holds = match raw.holds {
            None => None,
            given => {
                let (s, h) = (Duration::from_secs(1), Duration::from_secs(3600));
                Some(self.duration("sunspec.holds", given, h, s, h * 48)?)
            }
        };
        Ok(SunSpec {
            holds,
            listen: raw.listen,
            unit: raw.unit.unwrap_or(1),
            full: raw.full,
            node: self.node("sunspec.node", raw.node, nodes)?,
        })
    }
}
