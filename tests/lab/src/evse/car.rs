//! A car on an EVSE as IEC 61851-1 has it: it follows the offered current, ramps, and stops when full. Pure: time
//! is passed in.

use std::time::Duration;

/// Current rises this fast, A/s: between slow and quick cars.
const RISE: f64 = 4.0;
/// And falls this fast; the standard grants 5 s for the whole way.
const FALL: f64 = 40.0;
/// Least offer that a car charges at (IEC 61851-1).
pub const LEAST: f64 = 6.0;
/// Voltage for energy and power.
pub const VOLTS: f64 = 230.0;

/// A car and its battery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Car {
    /// Phases that its charger uses: 1 to 3.
    pub phases: usize,
    /// Most current per phase, A.
    pub max_amps: f64,
    /// What fits into the battery, Wh.
    pub room_wh: f64,
}

/// The power side of an EVSE.
#[derive(Debug, Clone, PartialEq)]
pub struct Power {
    car: Option<Car>,
    closed: bool,
    amps: f64,
    register_wh: f64,
    phases: usize,
}

impl Power {
    /// An EVSE with `phases` terminals; its register starts at `register_wh`.
    #[must_use]
    pub fn new(phases: usize, register_wh: f64) -> Self {
        Self { car: None, closed: false, amps: 0.0, register_wh, phases }
    }

    /// Plugs a car in, or out with `None`, which cuts the current.
    pub fn plug(&mut self, car: Option<Car>) {
        self.car = car;
        if self.car.is_none() {
            self.amps = 0.0;
        }
    }

    /// Whether a car is plugged in.
    #[must_use]
    pub fn plugged(&self) -> bool {
        self.car.is_some()
    }

    /// Whether the battery takes nothing more.
    #[must_use]
    pub fn full(&self) -> bool {
        self.car.is_some_and(|c| c.room_wh <= 0.0)
    }

    /// Closes or opens the contactor.
    pub fn close(&mut self, closed: bool) {
        self.closed = closed;
        if !closed {
            self.amps = 0.0;
        }
    }

    /// Phases that the plugged car uses; 0 without a car.
    #[must_use]
    pub fn car_phases(&self) -> usize {
        self.car.map_or(0, |c| c.phases.min(self.phases))
    }

    /// Current per terminal, A.
    #[must_use]
    pub fn currents(&self) -> [f64; 3] {
        let used = self.car_phases();
        std::array::from_fn(|i| if i < used { self.amps } else { 0.0 })
    }

    /// Power, W.
    #[must_use]
    pub fn watts(&self) -> f64 {
        self.currents().iter().sum::<f64>() * VOLTS
    }

    /// Energy register, Wh.
    #[must_use]
    pub fn register_wh(&self) -> f64 {
        self.register_wh
    }

    /// `by` passes while `offer` amperes are offered; cars and batteries move `pace` times as fast as real ones.
    pub fn pass(&mut self, by: Duration, pace: f64, offer: f64) {
        let seconds = by.as_secs_f64();
        let wanted = match self.car {
            Some(car) if self.closed && offer >= LEAST && car.room_wh > 0.0 => offer.min(car.max_amps),
            _ => 0.0,
        };
        let before = self.watts();
        if wanted > self.amps {
            // A charger begins at the least current at once.
            self.amps = wanted.min(self.amps.max(LEAST) + RISE * pace * seconds);
        } else {
            self.amps = wanted.max(self.amps - FALL * pace.max(1.0) * seconds);
        }
        if self.amps < LEAST {
            self.amps = if wanted > 0.0 { self.amps } else { 0.0 };
        }
        let energy = f64::midpoint(before, self.watts()) * seconds * pace / 3600.0;
        self.register_wh += energy;
        if let Some(car) = &mut self.car {
            car.room_wh -= energy;
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are set, not computed")]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn run(power: &mut Power, steps: usize, offer: f64) {
        for _ in 0..steps {
            power.pass(STEP, 1.0, offer);
        }
    }

    #[test]
    fn a_car_follows_the_offer_and_never_exceeds_it_for_long() {
        let mut power = Power::new(3, 1000.0);
        power.plug(Some(Car { phases: 3, max_amps: 16.0, room_wh: 50_000.0 }));
        run(&mut power, 50, 32.0);
        assert_eq!(power.currents(), [0.0; 3], "the contactor is open");
        power.close(true);
        run(&mut power, 50, 32.0);
        assert_eq!(power.currents(), [16.0; 3]);
        run(&mut power, 10, 8.0);
        assert_eq!(power.currents(), [8.0; 3]);
        run(&mut power, 10, 5.9);
        assert_eq!(power.currents(), [0.0; 3], "below 6 A nothing flows");
    }

    #[test]
    fn a_one_phase_car_uses_the_first_terminal_and_a_full_one_nothing() {
        let mut power = Power::new(3, 0.0);
        power.plug(Some(Car { phases: 1, max_amps: 32.0, room_wh: 10.0 }));
        power.close(true);
        run(&mut power, 10, 10.0);
        assert_eq!(power.currents(), [10.0, 0.0, 0.0]);
        run(&mut power, 1000, 10.0);
        assert!(power.full());
        assert_eq!(power.currents(), [0.0; 3]);
        assert!((10.0..11.0).contains(&power.register_wh()), "{}", power.register_wh());
    }
}
