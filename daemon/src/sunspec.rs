//! The site as a SunSpec device over Modbus TCP: what it draws to be read, a limit in percent to be written.
//!
//! In: reads and writes of registers. Out: the site's picture, grid limits of the issuer `sunspec`. Invariant: off unless
//! configured; a limit is confirmed only when its evidence is synced; what is not known reads as NaN, never as 0.
//!
//! | register | what |
//! |---|---|
//! | 40000 | `SunS`, then model 1 (who made it) |
//! | 40070 | model 213: three-phase meter of the grid connection, floating-point; active power at 40098 |
//! | 40196 | model 64900: reserved |
//! | 40966 | model 64901: limit in percent of `full` at 40968, floating-point, 100 for none; readable and writable |
//! | 40970 | end |
//!
//! The places are those that energy managers for charging sites read and write today.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::net::TcpListener;
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest, server};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Role},
    control::Handle,
    grid::Wish,
    ids::{LimitId, NodeId},
    site::{
        View,
        view::{MeterView, Quality},
    },
    units::{Phase, Watts},
};

const BASE: u16 = 40_000;
const COMMON: u16 = BASE + 2;
const METER: u16 = 40_070;
const RESERVED: u16 = 40_196;
const LIMIT_MODEL: u16 = 40_966;
const LIMIT: u16 = 40_968;
const END: u16 = 40_970;
/// The name under which the limit stands.
const ID: &str = "sunspec";

/// Serves until `stop`.
pub async fn run(
    config: config::SunSpec,
    listener: TcpListener,
    site: Handle,
    node: NodeId,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let service = Site { config: Arc::new(config), handle: site, node };
    let connected = |stream, from: SocketAddr| {
        let service = Peer { site: service.clone(), from };
        async move { Ok(Some((service, stream))) }
    };
    let failed = |error| tracing::debug!(%error, "a SunSpec connection ended");
    server::tcp::Server::new(listener).serve_until(&connected, failed, stop.cancelled_owned()).await.map(drop)
}

#[derive(Debug, Clone)]
struct Site {
    config: Arc<config::SunSpec>,
    handle: Handle,
    node: NodeId,
}

#[derive(Debug, Clone)]
struct Peer {
    site: Site,
    from: SocketAddr,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, ExceptionCode>> + Send>>;

impl server::Service for Peer {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Answer;

    fn call(&self, SlaveRequest { slave, request }: SlaveRequest<'static>) -> Answer {
        let peer = self.clone();
        Box::pin(async move {
            if slave != peer.site.config.unit {
                return Err(ExceptionCode::GatewayTargetDevice);
            }
            match request {
                Request::ReadHoldingRegisters(start, count) => {
                    Ok(Response::ReadHoldingRegisters(peer.site.read(start, count)?))
                }
                Request::ReadInputRegisters(start, count) => {
                    Ok(Response::ReadInputRegisters(peer.site.read(start, count)?))
                }
                Request::WriteMultipleRegisters(LIMIT, values) => {
                    peer.limit(&values).await?;
                    Ok(Response::WriteMultipleRegisters(LIMIT, 2))
                }
                Request::WriteMultipleRegisters(..) | Request::WriteSingleRegister(..) => {
                    Err(ExceptionCode::IllegalDataAddress)
                }
                _ => Err(ExceptionCode::IllegalFunction),
            }
        })
    }
}

impl Site {
    fn read(&self, start: u16, count: u16) -> Result<Vec<u16>, ExceptionCode> {
        let map = map(&self.handle.view().borrow(), &self.config);
        (0..count)
            .map(|i| start.checked_add(i).and_then(|at| map.get(&at)).copied())
            .collect::<Option<_>>()
            .ok_or(ExceptionCode::IllegalDataAddress)
    }
}

impl Peer {
    async fn limit(&self, values: &[u16]) -> Result<(), ExceptionCode> {
        let [high, low] = *values else { return Err(ExceptionCode::IllegalDataValue) };
        let percent = f32::from_bits(u32::from(high) << 16 | u32::from(low));
        if !(0.0..=100.0).contains(&percent) {
            tracing::warn!(from = %self.from, percent, "a limit over SunSpec is no percentage");
            return Err(ExceptionCode::IllegalDataValue);
        }
        let issuer = ID.to_owned();
        let outcome = if percent >= 100.0 {
            let cleared = self.site.handle.clear_limit(LimitId::new(ID), issuer, Role::Grid).await;
            cleared.map(drop)
        } else {
            let watts = share(self.site.config.full, percent);
            let now = self.site.handle.view().borrow().at.wall;
            let wish = Wish {
                valid_until: self.site.config.holds.map(|holds| now + holds),
                id: Some(LimitId::new(ID)),
                node: Some(self.site.node.clone()),
                reason: format!("{percent} % by {} over SunSpec", self.from.ip()),
                ..Wish::new(&issuer, Role::Grid, watts)
            };
            self.site.handle.set_limit(wish).await.map(drop)
        };
        outcome.map_err(|error| {
            tracing::warn!(from = %self.from, %error, "a limit over SunSpec was not taken");
            ExceptionCode::ServerDeviceFailure
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a share of what fits")]
fn share(full: Watts, percent: f32) -> Watts {
    Watts((full.0 as f64 * f64::from(percent) / 100.0).floor() as i64)
}

/// Every register and what it reads.
fn map(view: &View, config: &config::SunSpec) -> BTreeMap<u16, u16> {
    let mut map = BTreeMap::new();
    let put = |map: &mut BTreeMap<u16, u16>, at: u16, words: &[u16]| {
        map.extend((at..).zip(words.iter().copied()));
    };
    put(&mut map, BASE, &[0x5375, 0x6E53]);
    put(&mut map, COMMON, &[1, 66]);
    for (at, length, text) in [
        (COMMON + 2, 16, "Ladewart"),
        (COMMON + 18, 16, "charging site"),
        (COMMON + 34, 8, ""),
        (COMMON + 42, 8, env!("CARGO_PKG_VERSION")),
        (COMMON + 50, 16, view.name.as_str()),
    ] {
        let mut bytes: Vec<u8> = text.bytes().take(length * 2).collect();
        bytes.resize(length * 2, 0);
        let words: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
        put(&mut map, at, &words);
    }
    put(&mut map, COMMON + 66, &[u16::from(config.unit), 0]);

    put(&mut map, METER, &[213, 124]);
    for at in (METER + 2..RESERVED - 2).step_by(2) {
        put(&mut map, at, &words(f32::NAN));
    }
    // Events, a bit field.
    put(&mut map, RESERVED - 2, &[0, 0]);
    let root = view.nodes.first().and_then(|n| n.meter.as_ref());
    let meter = root.and_then(|id| view.meters.iter().find(|m| m.id == *id));
    for (offset, value) in meter.map(values).unwrap_or_default() {
        put(&mut map, METER + offset, &words(value));
    }

    put(&mut map, RESERVED, &[64_900, LIMIT_MODEL - RESERVED - 2]);
    for at in RESERVED + 2..LIMIT_MODEL {
        map.insert(at, 0);
    }
    put(&mut map, LIMIT_MODEL, &[64_901, 2]);
    let standing = view.limits.iter().find(|r| r.limit.id.as_str() == ID && !r.stage.ended());
    let percent = standing.map_or(100.0, |r| r.limit.watts.0 as f32 / config.full.0 as f32 * 100.0);
    put(&mut map, LIMIT, &words(percent));
    put(&mut map, END, &[0xFFFF, 0]);
    map
}

/// Offsets from the header of model 213 (SunSpec models/json/model_213.json).
fn values(meter: &MeterView) -> Vec<(u16, f32)> {
    let Some(reading) = meter.reading.filter(|_| meter.quality == Quality::Good) else { return Vec::new() };
    let sum: i64 = reading.currents.0.iter().map(|i| i.0.abs()).sum();
    let mut values = vec![(2, sum as f32 / 1000.0), (28, reading.power.0 as f32)];
    for (i, phase) in (0_u16..).zip(Phase::ALL) {
        let (amps, volts) =
            (reading.currents[phase].0 as f32 / 1000.0, reading.voltages[phase].0 as f32 / 1000.0);
        values.extend([(4 + 2 * i, amps), (12 + 2 * i, volts), (30 + 2 * i, amps * volts)]);
    }
    values.extend(reading.export.map(|wh| (60, wh.0 as f32)));
    values.extend(reading.import.map(|wh| (68, wh.0 as f32)));
    values
}

fn words(value: f32) -> [u16; 2] {
    let [a, b, c, d] = value.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[test]
    fn the_map_can_be_walked_and_its_registers_are_where_they_are_looked_for() {
        let view = View {
            at: Now::default(),
            name: "Hof 3".into(),
            devices: vec![],
            minimum: Arc::default(),
            sources: vec![],
            nodes: vec![],
            evses: vec![],
            meters: vec![],
            contacts: vec![],
            relays: vec![],
            limits: vec![],
        };
        let config = config::SunSpec {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            unit: 1,
            holds: None,
            full: Watts(55_000),
            node: 0,
        };
        let map = map(&view, &config);
        let (mut at, mut models) = (40_002_u16, Vec::new());
        while map[&at] != 0xFFFF {
            models.push((map[&at], at));
            for register in at..at + 2 + map[&(at + 1)] {
                assert!(map.contains_key(&register), "{register}");
            }
            at += 2 + map[&(at + 1)];
        }
        assert_eq!(models, [(1, 40_002), (213, 40_070), (64_900, 40_196), (64_901, 40_966)]);
        assert_eq!((map[&40_098], map[&40_099]), (0x7FC0, 0), "what is not known is no number");
        assert_eq!((map[&40_968], map[&40_969]), (0x42C8, 0));
        assert_eq!(share(Watts(55_000), 60.0), Watts(33_000));
    }
}
