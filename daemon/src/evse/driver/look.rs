//! What the box says: the vehicle's state and what it draws.

use std::time::Duration;

use super::{Driver, Lost};
use crate::{
    device::{
        AskError, Quantity,
        bus::{Class, Request},
        definition::wallbox::Vehicle,
    },
    meter,
    site::event::{ConnectorStatus, Draw, EvseEvent},
    units::{Milliamps, WattHours, Watts},
};

/// A vehicle that was offered current for so long and takes none wants none.
const WAITS: Duration = Duration::from_secs(60);

impl Driver {
    /// Whether it is this box at all.
    pub(super) async fn probe(&mut self) -> Result<(), Lost> {
        let Some(probe) = self.reader.definition().probe else { return Ok(()) };
        let request =
            Request::Read { function: probe.function, start: probe.register, count: probe.form.registers() };
        let registers = self.reader.ask(request, Class::Reading).await?;
        let number = probe.form.number(probe.form.bits(&registers, probe.order));
        if probe.window.holds(number) {
            return Ok(());
        }
        let name = &self.reader.definition().name;
        Err(Lost::Other(format!(
            "is another device than {name}: register 0x{:04X} reads {number}, outside {} to {}",
            probe.register, probe.window.min, probe.window.max
        )))
    }

    /// One look, told where it differs.
    pub(super) async fn look(&mut self) -> Result<(), Lost> {
        let vehicle = self.vehicle().await;
        let Some(vehicle) = self.counted(vehicle)? else { return Ok(()) };
        let registers = if self.reader.definition().blocks.is_empty() {
            Ok(None)
        } else {
            let blocks = self.reader.blocks().await;
            self.counted(blocks)
        };
        // Before the status: what ends with it is billed by the register that was read after it.
        if let Ok(Some(registers)) = &registers {
            self.draw(registers).await;
        }
        self.status(vehicle).await;
        registers.map(drop)
    }

    /// The vehicle's state; `Err` in words where the box says something unknown.
    async fn vehicle(&mut self) -> Result<Result<Vehicle, String>, AskError> {
        let state = self.reader.ask(self.wallbox.state.request(), Class::Reading).await?;
        let vehicle = self.wallbox.state.vehicle(&state);
        let Some(plug) = self.wallbox.plug else { return Ok(vehicle) };
        let there = plug.vehicle(&self.reader.ask(plug.request(), Class::Reading).await?);
        Ok(match vehicle {
            Ok(Vehicle::None) if there => Ok(Vehicle::Connected),
            Ok(Vehicle::Connected) if !there => Ok(Vehicle::None),
            other => other,
        })
    }

    async fn status(&mut self, vehicle: Result<Vehicle, String>) {
        let now = self.now();
        let offered = self.known.current.filter(|(current, _)| *current > Milliamps::ZERO);
        let (status, error) = match vehicle {
            Ok(Vehicle::None) => (ConnectorStatus::Available, String::new()),
            Ok(Vehicle::Charging) => (ConnectorStatus::Charging, String::new()),
            Ok(Vehicle::Connected) => match offered {
                Some((_, since)) if now.since(since) >= WAITS => {
                    (ConnectorStatus::SuspendedEv, String::new())
                }
                None if *self.parts.released.borrow() => (ConnectorStatus::SuspendedEvse, String::new()),
                Some(_) | None => (ConnectorStatus::Preparing, String::new()),
            },
            Ok(Vehicle::Fault) => (ConnectorStatus::Faulted, "the box reports a fault".to_owned()),
            Err(value) => (ConnectorStatus::Unknown, format!("unknown state {value}")),
        };
        let told = (status, error);
        if self.told.status.as_ref() != Some(&told) {
            self.told.status = Some(told.clone());
            let (status, error) = told;
            self.tell(EvseEvent::Status { status, error }).await;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "within the definition's windows, far below 2^53")]
    async fn draw(&mut self, registers: &[Vec<u16>]) {
        let values = match meter::values(self.reader.definition(), registers) {
            Ok(values) => values,
            Err(error) => return tracing::debug!(evse = %self.parts.evse.id, %error, "no measurement"),
        };
        let value = |quantity: Quantity| {
            let found = values.iter().find(|(q, _)| *q == quantity)?;
            found.1.as_ref().ok().copied()
        };
        let milli = |quantity| value(quantity).map(|v| Milliamps((v.abs() * 1000.0).round() as i64));
        let currents = [Quantity::CurrentL1, Quantity::CurrentL2, Quantity::CurrentL3].map(milli);
        let known = currents.iter().any(Option::is_some);
        let currents = known.then(|| currents.map(Option::unwrap_or_default));
        let phases = [Quantity::PowerL1, Quantity::PowerL2, Quantity::PowerL3].map(value);
        let sum = phases.iter().any(Option::is_some).then(|| phases.into_iter().flatten().sum());
        let power = value(Quantity::Power).or(sum).map(|w: f64| Watts(w.round() as i64));
        let energy = value(Quantity::Import).map(|wh| WattHours(wh.round() as i64));
        if currents.is_none() && power.is_none() && energy.is_none() {
            return;
        }
        let at = self.parts.clock.now();
        self.tell(EvseEvent::Draw(Draw { at, currents, power, energy })).await;
    }
}
