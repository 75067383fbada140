//! Powers and currents of what is behind a node, and the voltages between them.

use super::{Site, load, view::Quality};
use crate::{
    plan::reserve,
    time::Mono,
    units::{Milliamps, Millivolts, PerPhase, Phase, Watts},
};

impl Site {
    /// What all controllable devices behind a node can draw together.
    #[must_use]
    pub fn rated(&self, node: usize) -> Watts {
        let evses = self.behind(node).map(|e| self.config.evses[e].rated());
        evses.chain(self.devices_behind(node).map(|d| self.config.devices[d].power)).sum()
    }

    /// What the rest of the site draws behind a node; negative while it feeds in. `None` without a meter there.
    #[must_use]
    pub fn other_power(&self, node: usize, now: Mono) -> Option<Watts> {
        let load = self.loads[node]?;
        let voltages = self.voltages(now);
        Some(load.other.iter().map(|(p, current)| voltages[p].power_ceil(*current)).sum())
    }

    /// What is generated behind a node and not used by others there, as far as a fresh measurement shows it.
    #[must_use]
    pub fn own_generation(&self, node: usize, now: Mono) -> Watts {
        self.generation(node, now, |load| load.feeds)
    }

    /// How much of [`Self::own_generation`] is in doubt: nothing was heard yet that tells it from cars or devices that
    /// draw less than they may.
    #[must_use]
    pub fn doubtful_generation(&self, node: usize, now: Mono) -> Watts {
        self.own_generation(node, now) - self.generation(node, now, load::Split::other_at_most)
    }

    fn generation(
        &self,
        node: usize,
        now: Mono,
        rest: impl Fn(&load::Split) -> PerPhase<Milliamps>,
    ) -> Watts {
        let fresh = self.config.nodes[node]
            .meter
            .is_some_and(|m| self.meters[m].quality(&self.config.control, now) == Quality::Good);
        if !self.config.grid.generation || !fresh {
            return Watts::ZERO;
        }
        let Some(load) = &self.loads[node] else { return Watts::ZERO };
        let voltages = self.lowest_voltages(now);
        let other: Watts = rest(load)
            .iter()
            .map(|(p, current)| {
                let volts = if *current < Milliamps::ZERO { voltages[p] } else { self.voltages(now)[p] };
                Watts(current.0.saturating_mul(volts.0).div_euclid(1_000_000) + 1)
            })
            .sum();
        (Watts::ZERO - other).max(Watts::ZERO)
    }

    /// What a device may be drawing on each phase: by its own meter, else anything up to what it is granted.
    pub(super) fn device_interval(&self, d: usize, now: Mono) -> load::Interval {
        let (config, control) = (&self.config.devices[d], &self.config.control);
        let measured = config.meter.map(|m| &self.meters[m]);
        if let Some(reading) =
            measured.filter(|m| m.quality(control, now) == Quality::Good).and_then(|m| m.reading)
        {
            let drawn = PerPhase::from_fn(|p| reading.currents[p].max(Milliamps::ZERO));
            return load::Interval::exactly(drawn);
        }
        let most = reserve::device(self, d, now);
        let volts = self.lowest_voltages(now);
        let count = i64::try_from(config.wiring.count()).unwrap_or(3).max(1);
        let high = PerPhase::from_fn(|p| {
            let each = most.0.saturating_mul(1_000_000) / volts[p].0.max(1) / count;
            if config.wiring.uses(p) { Milliamps(each) } else { Milliamps::ZERO }
        });
        load::Interval { high, moves: PerPhase([true; 3]), ..load::Interval::default() }
    }

    /// Voltages for turning current into power: measured at the grid connection if that is fresh and plausible, else
    /// the highest lawful ones, so that a power limit is kept in any case.
    #[must_use]
    pub fn voltages(&self, now: Mono) -> PerPhase<Millivolts> {
        self.measured_voltages(now, Millivolts::HIGHEST)
    }

    /// Voltages for turning power into current: the same, else the lowest lawful ones.
    #[must_use]
    pub fn lowest_voltages(&self, now: Mono) -> PerPhase<Millivolts> {
        self.measured_voltages(now, Millivolts::LOWEST)
    }

    fn measured_voltages(&self, now: Mono, otherwise: Millivolts) -> PerPhase<Millivolts> {
        let control = &self.config.control;
        let measured = self.config.nodes.first().and_then(|n| n.meter).and_then(|m| {
            let fresh = self.meters[m].quality(control, now) == Quality::Good;
            self.meters[m].reading.filter(|_| fresh).map(|r| r.voltages)
        });
        PerPhase::from_fn(|p| match measured {
            Some(v) if (Millivolts(195_000)..=Millivolts(264_000)).contains(&v[p]) => v[p],
            _ => otherwise,
        })
    }

    /// Power of an EVSE that draws `current` on the phases it uses.
    #[must_use]
    pub fn power_at(&self, evse: usize, current: Milliamps, now: Mono) -> Watts {
        let voltages = self.voltages(now);
        let phases = self.evses[evse].phases(&self.config.evses[evse]);
        Phase::ALL.into_iter().filter(|p| phases[*p]).map(|p| voltages[p].power_ceil(current)).sum()
    }
}
