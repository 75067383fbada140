//! What expressions may look at.

use crate::{
    formula::{EvseField, MeterField, Name, Value},
    site::{Site, event::Level, view::Quality},
    tariff::{Local, Tariffs},
    time::Now,
    units::{Milliamps, Phase, Watts},
};

impl Site {
    /// Prices and levels as they stand.
    #[must_use]
    pub fn tariffs_now(&self, now: Now) -> Tariffs<'_> {
        let schedule = &self.config.charging.tariff;
        let variable = schedule.variable.as_ref().and_then(|by| self.variables.value(by.variable, now.wall));
        Tariffs { schedule, book: &self.tariffs, variable }
    }

    /// What the site would feed in if no EVSE charged; none while the grid connection is not measured freshly.
    #[must_use]
    pub fn surplus(&self, now: Now) -> Option<Watts> {
        let meter = self.config.nodes.first()?.meter?;
        if self.meters[meter].quality(&self.config.control, now.mono) != Quality::Good {
            return None;
        }
        let drawn: Watts = (0..self.evses.len()).filter_map(|e| self.evse_power(e, now)).sum();
        Some(drawn - self.meters[meter].reading?.power)
    }

    /// What an EVSE draws by a fresh measurement of its own; 0 without a vehicle.
    #[must_use]
    pub fn evse_power(&self, e: usize, now: Now) -> Option<Watts> {
        let facts = &self.evses[e];
        if !facts.vehicle_possible() {
            return Some(Watts::ZERO);
        }
        facts.draw.filter(|draw| now.mono.since(draw.at.mono) <= super::facts::DRAW_FRESH)?;
        facts.draw_power(&self.config.evses[e], self.voltages(now.mono))
    }

    /// The value of a name; for a price or a level, that of an EVSE. None if it is not known now.
    #[must_use]
    pub fn value(&self, name: Name, evse: Option<usize>, now: Now) -> Option<Value> {
        let number = |value: i64, scale: f64| Some(Value::Number(value as f64 / scale));
        match name {
            Name::Variable(at) => self.variables.value(at, now.wall).map(Value::Number),
            Name::Contact(at) => match self.contacts.get(at)?.level {
                Level::Open => Some(Value::Truth(false)),
                Level::Closed => Some(Value::Truth(true)),
                // Of two lines: while either limits.
                Level::Code(ref code) => Some(Value::Truth(*code != 0)),
                Level::Unreadable(_) => None,
            },
            Name::Meter(at, field) => {
                let meter = self.meters.get(at)?;
                if meter.quality(&self.config.control, now.mono) != Quality::Good {
                    return None;
                }
                let reading = meter.reading?;
                match field {
                    MeterField::Power => number(reading.power.0, 1.0),
                    MeterField::Import => number(reading.import?.0, 1.0),
                    MeterField::Export => number(reading.export?.0, 1.0),
                    MeterField::Current(p) => number(reading.currents[*Phase::ALL.get(p)?].0, 1000.0),
                    MeterField::Voltage(p) => number(reading.voltages[*Phase::ALL.get(p)?].0, 1000.0),
                }
            }
            Name::Evse(at, field) => {
                let facts = self.evses.get(at)?;
                match field {
                    EvseField::Power => number(self.evse_power(at, now)?.0, 1.0),
                    EvseField::Current if !facts.vehicle_possible() => Some(Value::Number(0.0)),
                    EvseField::Current => {
                        facts.draw.filter(|d| now.mono.since(d.at.mono) <= super::facts::DRAW_FRESH)?;
                        let phases = facts.draw_phases(&self.config.evses[at])?;
                        number(phases.0.into_iter().max()?.0, 1000.0)
                    }
                    EvseField::Setpoint => {
                        number(facts.leash.newest().map_or(Milliamps::ZERO, |s| s.limit).0, 1000.0)
                    }
                    EvseField::Connected => Some(Value::Truth(facts.connected.is_some())),
                    EvseField::Charging => Some(Value::Truth(facts.transaction.is_some())),
                }
            }
            Name::Hour => {
                let local = Local::of(now.wall, &self.config.charging.tariff.zone);
                Some(Value::Number(f64::from(local.minute) / 60.0))
            }
            Name::Weekday => {
                let local = Local::of(now.wall, &self.config.charging.tariff.zone);
                Some(Value::Number(f64::from(local.weekday)))
            }
            Name::Price => {
                let price = self.tariffs_now(now).at(&self.config.evses.get(evse?)?.id, now.wall).price?;
                Some(Value::Number(price.cents()))
            }
            Name::Level => {
                let level = self.tariffs_now(now).at(&self.config.evses.get(evse?)?.id, now.wall).level?;
                Some(Value::Text(level.name().into()))
            }
            Name::Surplus => number(self.surplus(now)?.0, 1.0),
        }
    }
}
