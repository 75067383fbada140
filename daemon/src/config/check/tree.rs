//! The electrical tree, the devices in it, and `[grid]`.

use std::time::Duration;

use super::{Check, Checked};
use crate::{
    config::{
        Attachment, Bus, Device, DeviceKind, Evse, Grid, GridSource, Meter, Node, Relay, RelayFunction,
        SetpointRegister, raw,
    },
    ids::NodeId,
    units::{Milliamps, Millivolts, PerPhase, Phase, Watts, Wiring},
};

/// VDE-AR-N 4100 no. 5.5: 4.6 kVA per conductor.
const UNBALANCE: Milliamps = Milliamps::amps(20);
/// BNetzA BK6-22-300 Anlage 1 no. 4.5: what one device is owed.
const OWED: Watts = Watts(4200);

impl Check<'_> {
    pub(super) fn nodes(&self, raw: &[raw::Node], meters: &[Meter]) -> Checked<Vec<Node>> {
        if raw.is_empty() {
            return self.fail("node", "is missing; add [[node]] with the fuse of the grid connection");
        }
        let order = self.order(raw)?;
        let mut nodes: Vec<Node> = Vec::with_capacity(raw.len());
        for i in order {
            let n = &raw[i];
            let at = |name: &str| format!("node[{i}].{name}");
            let range = Milliamps::amps(6)..=Milliamps::amps(3000);
            if let Some((phase, fuse)) = n.fuse.0.iter().find(|(_, fuse)| !range.contains(fuse)) {
                return self
                    .fail(&at("fuse"), format!("{fuse} on {phase} is out of range; use 6 A to 3000 A"));
            }
            let meter = self.meter(&at("meter"), n.meter.as_ref(), meters)?;
            if let Some(other) = nodes.iter().find(|other| meter.is_some() && other.meter == meter) {
                let name = &meters[meter.unwrap_or_default()].id;
                return self.fail(
                    &at("meter"),
                    format!("\"{name}\" measures node \"{}\" already; each node needs its own", other.id),
                );
            }
            if let Some(contract) = n.contract.filter(|w| *w < Watts(1000)) {
                return self.fail(&at("contract"), format!("{contract} is out of range; use 1 kW or more"));
            }
            let reserve = n.reserve.unwrap_or(Milliamps::ZERO);
            let least = n.fuse.0.0.into_iter().min().unwrap_or_default();
            if reserve < Milliamps::ZERO || reserve >= least {
                return self.fail(
                    &at("reserve"),
                    format!("{reserve} is out of range; use 0 A to less than the fuse of {least}"),
                );
            }
            nodes.push(Node {
                id: n.id.clone(),
                parent: n.parent.as_ref().and_then(|p| nodes.iter().position(|other| other.id == *p)),
                fuse: n.fuse.0,
                meter,
                contract: n.contract,
                reserve,
                unbalance: self.unbalance(&at("unbalance"), n, i == 0)?,
            });
        }
        Ok(nodes)
    }

    fn unbalance(&self, field: &str, node: &raw::Node, connection: bool) -> Checked<Option<Milliamps>> {
        match node.unbalance {
            Some(_) if !connection => {
                self.fail(field, "belongs to the first node, the grid connection; remove it here")
            }
            Some(given) if given < Milliamps::amps(6) => self.fail(
                field,
                format!("{given} is out of range; use 6 A or more, the fuse to switch the rule off"),
            ),
            given => {
                let most = node.fuse.0.0.into_iter().max().unwrap_or_default();
                Ok(Some(given.unwrap_or(UNBALANCE)).filter(|limit| connection && *limit < most))
            }
        }
    }

    /// Parents before children, the grid connection first; or what is wrong with the tree.
    fn order(&self, raw: &[raw::Node]) -> Checked<Vec<usize>> {
        let find = |name: &NodeId| raw.iter().position(|n| n.id == *name);
        let mut depths = Vec::with_capacity(raw.len());
        for (i, n) in raw.iter().enumerate() {
            let at = |name: &str| format!("node[{i}].{name}");
            if find(&n.id) != Some(i) {
                return self.fail(&at("id"), format!("\"{}\" names another node already", n.id));
            }
            match (&n.parent, i) {
                (Some(_), 0) => {
                    return self.fail(&at("parent"), "the first node is the grid connection; remove it");
                }
                (None, 1..) => {
                    return self.fail(
                        &at("parent"),
                        format!(
                            "is missing; only the first node is the grid connection, add parent = \"{}\"",
                            raw[0].id
                        ),
                    );
                }
                _ => {}
            }
            let (mut way, mut above) = (vec![&n.id], n.parent.as_ref());
            while let Some(name) = above {
                if way.contains(&name) {
                    way.push(name);
                    let way: Vec<_> = way.iter().map(|id| id.as_str()).collect();
                    return self.fail(
                        &at("parent"),
                        format!(
                            "leads round in a circle ({}); the way up must end at \"{}\"",
                            way.join(" → "),
                            raw[0].id
                        ),
                    );
                }
                way.push(name);
                let Some(parent) = find(name) else {
                    let known: Vec<_> = raw
                        .iter()
                        .map(|n| n.id.as_str())
                        .filter(|id| *id != way[way.len() - 2].as_str())
                        .collect();
                    let at = format!("node[{}].parent", find(way[way.len() - 2]).unwrap_or(i));
                    return self
                        .fail(&at, format!("there is no node \"{name}\"; there are {}", known.join(", ")));
                };
                above = raw[parent].parent.as_ref();
            }
            depths.push((way.len(), i));
        }
        depths.sort_unstable();
        Ok(depths.into_iter().map(|(_, i)| i).collect())
    }

    pub(super) fn node(&self, field: &str, name: Option<NodeId>, nodes: &[Node]) -> Checked<usize> {
        let Some(name) = name else { return Ok(0) };
        match nodes.iter().position(|n| n.id == name) {
            Some(index) => Ok(index),
            None => {
                let known: Vec<_> = nodes.iter().map(|n| n.id.as_str()).collect();
                self.fail(field, format!("there is no node \"{name}\"; there are {}", known.join(", ")))
            }
        }
    }

    fn meter(
        &self,
        field: &str,
        name: Option<&crate::ids::MeterId>,
        meters: &[Meter],
    ) -> Checked<Option<usize>> {
        let Some(name) = name else { return Ok(None) };
        match meters.iter().position(|m| m.id == *name) {
            Some(index) => Ok(Some(index)),
            None => self.fail(field, format!("there is no [[meter]] with id = \"{name}\"")),
        }
    }

    pub(super) fn weight(&self, field: &str, given: Option<u8>) -> Checked<u8> {
        match given.unwrap_or(1) {
            weight @ 1..=10 => Ok(weight),
            wrong => self.fail(field, format!("{wrong} is out of range; use 1 to 10")),
        }
    }

    pub(super) fn ramp(&self, given: Option<Milliamps>) -> Checked<Milliamps> {
        let ramp = given.unwrap_or(Milliamps::amps(16));
        if ramp < Milliamps::amps(1) {
            return self.fail("control.ramp", format!("{ramp} is out of range; use 1 A or more"));
        }
        Ok(ramp)
    }

    pub(super) fn devices(
        &self,
        raw: Vec<raw::Device>,
        nodes: &[Node],
        meters: &[Meter],
        buses: &[Bus],
    ) -> Checked<Vec<Device>> {
        let mut devices: Vec<Device> = Vec::with_capacity(raw.len());
        for (i, d) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("device[{i}].{name}");
            if devices.iter().any(|other| other.id == d.id) {
                return self.fail(&at("id"), format!("\"{}\" names another device already", d.id));
            }
            if !(Watts(100)..=Watts(1_000_000)).contains(&d.power) {
                return self.fail(&at("power"), format!("{} is out of range; use 100 W to 1000 kW", d.power));
            }
            let meter = self.meter(&at("meter"), d.meter.as_ref(), meters)?;
            if let Some(node) = nodes.iter().find(|n| meter.is_some() && n.meter == meter) {
                return self.fail(
                    &at("meter"),
                    format!("measures node \"{}\" already; a device needs a meter of its own", node.id),
                );
            }
            let steps = d.setpoint.is_some();
            if let Some(field) =
                [("min", d.min), ("step", d.step)].into_iter().find(|(_, w)| w.is_some() && !steps)
            {
                return self
                    .fail(&at(field.0), "needs setpoint: what hangs on a relay knows on and off only");
            }
            let step = if steps { d.step.unwrap_or(Watts(100)) } else { d.power };
            let min = if steps { d.min.unwrap_or(step) } else { d.power };
            if min < Watts::ZERO || min > d.power {
                return self.fail(&at("min"), format!("{min} is out of range; use 0 W to {}", d.power));
            }
            if step < Watts(1) || step > d.power {
                return self.fail(&at("step"), format!("{step} is out of range; use 1 W to {}", d.power));
            }
            let setpoint = d.setpoint.map(|s| self.register(&at("setpoint"), s, step, buses)).transpose()?;
            let s = Duration::from_secs;
            devices.push(Device {
                id: d.id,
                kind: match d.kind {
                    raw::Kind::HeatPump => DeviceKind::HeatPump,
                    raw::Kind::Cooling => DeviceKind::Cooling,
                    raw::Kind::Storage => DeviceKind::Storage,
                },
                node: self.node(&at("node"), d.node.map(|n| n.0), nodes)?,
                wiring: d.phases.unwrap_or(Wiring::L123),
                power: d.power,
                min,
                step,
                setpoint,
                meter,
                min_on: self.duration(&at("min_on"), d.min_on, s(600), s(0), s(7200))?,
                min_off: self.duration(&at("min_off"), d.min_off, s(300), s(0), s(7200))?,
                class: d.class.unwrap_or(50),
                weight: self.weight(&at("weight"), d.weight)?,
            });
        }
        Ok(devices)
    }

    fn register(
        &self,
        field: &str,
        raw: raw::SetpointRegister,
        step: Watts,
        buses: &[Bus],
    ) -> Checked<SetpointRegister> {
        let at = self.attachment(field, raw.address, raw.bus, buses)?;
        if matches!(at, Attachment::Http(_)) {
            return self
                .fail(&format!("{field}.address"), "is not host:port; a register is written by Modbus");
        }
        let count = raw.count.unwrap_or(Watts(1));
        if count < Watts(1) || step.0 % count.0 != 0 {
            return self.fail(
                &format!("{field}.count"),
                format!("{count} does not divide the device's step of {step}"),
            );
        }
        Ok(SetpointRegister {
            at,
            unit: raw.unit.unwrap_or(1),
            register: raw.register,
            watts_per_step: count.0,
        })
    }

    pub(super) fn grid(&self, raw: raw::Grid, nodes: &[Node]) -> Checked<Grid> {
        let s = Duration::from_secs;
        let mut sources: Vec<GridSource> = Vec::with_capacity(raw.source.len());
        for (i, source) in raw.source.into_iter().enumerate() {
            let at = |name: &str| format!("grid.source[{i}].{name}");
            if source.issuer.trim().is_empty() {
                return self.fail(&at("issuer"), "is empty; name the caller as in `ladewartctl limit list`");
            }
            if sources.iter().any(|other| other.issuer == source.issuer) {
                return self.fail(&at("issuer"), format!("\"{}\" has an entry already", source.issuer));
            }
            let failsafe = source.failsafe.unwrap_or(OWED);
            if failsafe < Watts::ZERO {
                return self.fail(&at("failsafe"), format!("{failsafe} is negative; use 0 W or more"));
            }
            sources.push(GridSource {
                issuer: source.issuer,
                node: self.node(&at("node"), source.node, nodes)?,
                timeout: self.duration(&at("timeout"), source.timeout, s(120), s(2), s(3600))?,
                failsafe,
                failsafe_for: self.duration(
                    &at("failsafe_for"),
                    source.failsafe_for,
                    s(7200),
                    s(7200),
                    s(86_400),
                )?,
                autonomous: source.afterwards == Some(raw::Afterwards::Autonomous),
            });
        }
        Ok(Grid {
            return_over: self.duration("grid.return_over", raw.return_over, s(300), s(0), s(7200))?,
            generation: raw.generation.unwrap_or(true),
            sources,
        })
    }

    /// What only the whole tree tells: failsafe values that do not fit, devices that nothing drives. `written` are the
    /// nodes in the order of the document.
    pub(super) fn tree_fits(
        &self,
        written: &[NodeId],
        nodes: &[Node],
        evses: &[Evse],
        devices: &[Device],
        relays: &[Relay],
    ) -> Checked<()> {
        self.failsafe_fits(written, nodes, evses)?;
        for (d, device) in devices.iter().enumerate() {
            let drives = |r: &&Relay| r.function == RelayFunction::Device(d);
            match (relays.iter().filter(drives).count(), &device.setpoint) {
                (1, None) | (0, Some(_)) => {}
                (0, None) => {
                    return self.fail(
                        &format!("device[{d}].id"),
                        format!(
                            "nothing drives \"{}\"; add [[relay]] with function = \"release\" and device = \"{}\", or setpoint",
                            device.id, device.id
                        ),
                    );
                }
                (n, _) => {
                    let with = if device.setpoint.is_some() { " beside its setpoint" } else { "" };
                    return self.fail(
                        &format!("device[{d}].id"),
                        format!("{n} relays release \"{}\"{with}; one driver is right", device.id),
                    );
                }
            }
            for (_, node) in nodes.iter().enumerate().filter(|(n, _)| behind(nodes, device.node, *n)) {
                let each = currents(device);
                if let Some((phase, draws)) = each.iter().find(|(p, draws)| **draws > node.fuse[*p]) {
                    return self.fail(
                        &format!("device[{d}].power"),
                        format!(
                            "{} is {draws} on {phase}, more than the fuse of {} of node \"{}\"",
                            device.power, node.fuse[phase], node.id
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// All EVSEs at their failsafe values together must not overload a fuse by themselves.
    fn failsafe_fits(&self, written: &[NodeId], nodes: &[Node], evses: &[Evse]) -> Checked<()> {
        for (n, node) in nodes.iter().enumerate() {
            for phase in Phase::ALL {
                let here = evses.iter().filter(|e| behind(nodes, e.node, n) && e.wiring.uses(phase));
                let sum: Milliamps = here.map(|e| e.failsafe).sum();
                if sum > node.fuse[phase] {
                    return self.fail(
                        &format!("node[{}].fuse", written.iter().position(|id| *id == node.id).unwrap_or(n)),
                        format!(
                            "the EVSEs' failsafe values add up to {sum} on {phase}, more than {}",
                            node.fuse[phase]
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

/// What a device draws on each phase at nominal voltage.
fn currents(device: &Device) -> PerPhase<Milliamps> {
    let count = i64::try_from(device.wiring.count()).unwrap_or(3).max(1);
    let each = Milliamps(device.power.0.saturating_mul(1_000_000) / Millivolts::NOMINAL.0 / count);
    PerPhase::from_fn(|p| if device.wiring.uses(p) { each } else { Milliamps::ZERO })
}

/// Whether what stands at `at` is behind node `n`.
fn behind(nodes: &[Node], mut at: usize, n: usize) -> bool {
    loop {
        if at == n {
            return true;
        }
        match nodes[at].parent {
            Some(parent) => at = parent,
            None => return false,
        }
    }
}
