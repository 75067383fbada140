//! An answer of a meter: judged, taken, and split between the cars and the rest.

use super::{Site, event::Reading, facts::EvseFacts, fall::Fall, load, load::Overload, plausible::Cars};
use crate::{
    config,
    time::{Mono, Now},
    units::{Milliamps, PerPhase},
};

impl Site {
    pub(super) fn take_reading(&mut self, at: usize, reading: Reading, now: Now) {
        let node = (0..self.config.nodes.len()).find(|n| self.config.nodes[*n].meter == Some(at));
        let fuse = node.map(|n| self.config.nodes[n].fuse);
        let cars = node.map_or_else(Cars::default, |n| Cars {
            exact: self
                .drawn_behind(n, |e, config| e.interval(config, &self.config.control, now.mono).settled()),
            told: self.drawn_behind(n, |e, config| e.told(config, now.mono)),
        });
        let meter = &mut self.meters[at];
        match meter.judge.judge(&reading, cars, fuse, now) {
            Ok(()) => {
                meter.reading = Some(reading);
                meter.problem.clear();
                self.split_load(at, now.mono);
            }
            Err(problem) => meter.problem = problem,
        }
    }

    /// What all EVSEs behind a node draw together, if it is known of each.
    fn drawn_behind(
        &self,
        node: usize,
        draws: impl Fn(&EvseFacts, &config::Evse) -> Option<PerPhase<Milliamps>>,
    ) -> Option<PerPhase<Milliamps>> {
        let mut sum = PerPhase::<Milliamps>::default();
        for e in self.behind(node) {
            for (phase, current) in draws(&self.evses[e], &self.config.evses[e])?.iter() {
                sum[phase] += *current;
            }
        }
        Some(sum)
    }

    /// An EVSE told what it draws.
    pub(super) fn heard_draw(&mut self, e: usize) {
        self.evses[e].fall =
            self.nearest_meter(e).map_or_else(Fall::default, |n| Fall::since(&self.recent[n]));
    }

    /// The nearest node above an EVSE that has a meter.
    fn nearest_meter(&self, e: usize) -> Option<usize> {
        let nodes = &self.config.nodes;
        let mut way = std::iter::successors(Some(self.config.evses[e].node), |n| nodes[*n].parent);
        way.find(|n| nodes[*n].meter.is_some())
    }

    fn split_load(&mut self, meter: usize, now: Mono) {
        let Some(reading) = self.meters[meter].reading else { return };
        for node in 0..self.config.nodes.len() {
            if self.config.nodes[node].meter != Some(meter) {
                continue;
            }
            self.recent[node].push(reading.currents, now);
            for e in 0..self.evses.len() {
                if self.nearest_meter(e) == Some(node) {
                    self.evses[e].fall.see(reading.currents);
                }
            }
            let over = &mut self.over_since[node];
            let overload = PerPhase::from_fn(|p| {
                if reading.currents[p] <= self.config.nodes[node].fuse[p] {
                    over[p] = None;
                    return Overload::None;
                }
                let since = *over[p].get_or_insert(now);
                if now.since(since) < self.config.control.settle { Overload::New } else { Overload::Lasting }
            });
            let evses = self
                .behind(node)
                .map(|e| self.evses[e].interval(&self.config.evses[e], &self.config.control, now));
            let behind = evses.chain(self.devices_behind(node).map(|d| self.device_interval(d, now)));
            self.loads[node] = Some(load::split(self.loads[node], reading.currents, overload, behind));
        }
    }
}
