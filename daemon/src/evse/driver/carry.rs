//! Setpoints into the box: written, read back, answered; and its watchdog.

use super::{Driver, Lost, STALE, amps};
use crate::{
    device::{
        bus::{BusError, Class},
        definition::wallbox::{Cell, Failsafe, Family},
        quantity::Form,
    },
    plan::Setpoint,
    site::event::EvseEvent,
    time::Mono,
    units::Milliamps,
};

impl Driver {
    /// The setpoint that counts now: none when the plan is stale or the lease is over.
    fn wish(&mut self, now: Mono) -> Option<Setpoint> {
        let setpoint = self.parts.setpoint.borrow_and_update().clone()?;
        let fresh = now.since(*self.parts.fresh.borrow()) <= STALE;
        fresh.then_some(setpoint)
    }

    /// Whether asking the box something may keep it from its failsafe although nobody decides any more.
    pub(super) fn may_talk(&self, now: Mono) -> bool {
        self.wallbox.watchdog.family != Family::Traffic || now.since(*self.parts.fresh.borrow()) <= STALE
    }

    /// Brings the box to what is wanted, answers for it, and feeds its watchdog.
    pub(super) async fn carry_out(&mut self) -> Result<(), Lost> {
        let now = self.now();
        let Some(setpoint) = self.wish(now) else { return Ok(()) };
        let released = *self.parts.released.borrow_and_update();
        let limit = if released { setpoint.limit } else { Milliamps::ZERO };
        let limit = self.parts.cap.borrow_and_update().map_or(limit, |cap| limit.min(cap));
        let current = self.wallbox.current(limit);
        let standing = self.known.current.map(|(current, _)| current);
        let due = self.known.fed.is_none_or(|fed| now.since(fed) >= self.wallbox.feed_every());
        let expires = self.wallbox.watchdog.family == Family::Setpoint && due;
        if standing != Some(current) || self.known.answered != Some(setpoint.sequence) || expires {
            let outcome = self.set(current, &setpoint).await;
            let Some(outcome) = self.counted(outcome.map_err(Into::into))? else { return Ok(()) };
            self.answer(&setpoint, current, outcome).await;
        }
        if due {
            self.feed().await?;
        }
        Ok(())
    }

    /// Writes current and failsafe, and reads them back. The inner error is the box's refusal in words.
    async fn set(&mut self, current: Milliamps, setpoint: &Setpoint) -> Result<Result<(), String>, BusError> {
        let now = self.now();
        let (cell, enable) = (self.wallbox.setpoint, self.wallbox.enable);
        if self.known.current.is_none_or(|(standing, _)| standing != current) {
            // Until it is read back nobody knows.
            self.known.current = None;
        }
        let value = if current == Milliamps::ZERO { self.wallbox.off } else { Some(amps(current)) };
        if current == Milliamps::ZERO
            && let Some((cell, _, off)) = enable
            && let Err(why) = self.put(cell, off, "the release").await?
        {
            return Ok(Err(why));
        }
        if let Some(value) = value
            && let Err(why) = self.put(cell, value, "the setpoint").await?
        {
            return Ok(Err(why));
        }
        if current > Milliamps::ZERO
            && let Some((cell, on, _)) = enable
            && let Err(why) = self.put(cell, on, "the release").await?
        {
            return Ok(Err(why));
        }
        self.known.current = match self.known.current {
            Some((standing, since)) if standing == current => Some((standing, since)),
            _ => Some((current, now)),
        };
        if let Failsafe::Written(cell) = self.wallbox.failsafe
            && self.known.distrust.is_none()
            && self.known.failsafe != Some(setpoint.failsafe)
        {
            self.known.failsafe = None;
            if let Err(why) = self.put(cell, amps(setpoint.failsafe), "its failsafe current").await? {
                return Ok(Err(why));
            }
            self.known.failsafe = Some(setpoint.failsafe);
        }
        if self.wallbox.watchdog.family == Family::Setpoint {
            self.known.fed = Some(now);
        }
        Ok(Ok(()))
    }

    async fn answer(&mut self, setpoint: &Setpoint, limit: Milliamps, outcome: Result<(), String>) {
        let sequence = setpoint.sequence;
        self.known.answered = Some(sequence);
        let distrust = self.known.distrust.clone().map(|why| format!("is not managed: {why}"));
        match outcome.err().or(distrust) {
            None => {
                let lease_until = self.now() + setpoint.lease;
                self.known.confirmed = Some(setpoint.clone());
                self.tell(EvseEvent::Confirmed { sequence, limit, lease_until }).await;
            }
            Some(why) => self.tell(EvseEvent::Refused { sequence, why }).await,
        }
    }

    /// Feeds the watchdog. Only ever called with a fresh plan.
    async fn feed(&mut self) -> Result<(), Lost> {
        let outcome = match self.wallbox.watchdog.family {
            // Any request does; readings follow every second. What is set is fed when it is set.
            Family::Traffic | Family::Setpoint => {
                self.known.fed = Some(self.now());
                return Ok(());
            }
            Family::LifeBit(cell, value) => self.write(cell, value).await,
            Family::Timeout => match self.wallbox.watchdog.armed {
                Some(cell) => self.write(cell, self.wallbox.watchdog.timeout.as_secs_f64()).await,
                None => return Ok(()),
            },
        };
        if self.counted(outcome.map_err(Into::into))?.is_some() {
            self.known.fed = Some(self.now());
        }
        Ok(())
    }

    async fn write(&self, cell: Cell, value: f64) -> Result<(), BusError> {
        let Some(registers) = cell.registers(value) else { return Ok(()) };
        self.reader.ask(cell.write(registers), Class::Setpoint).await.map(drop)
    }

    /// Writes and reads back. The inner error is the box's refusal, or that it reads otherwise, in words.
    pub(super) async fn put(
        &self,
        cell: Cell,
        value: f64,
        what: &str,
    ) -> Result<Result<(), String>, BusError> {
        let Some(registers) = cell.registers(value) else {
            return Ok(Err(format!("{what} cannot be {value} in this box")));
        };
        match self.reader.ask(cell.write(registers.clone()), Class::Setpoint).await {
            Ok(_) => {}
            Err(error @ BusError::Exception { .. }) => {
                return Ok(Err(format!("{what} is not taken: {error}")));
            }
            Err(error) => return Err(error),
        }
        let Some(request) = cell.read_back() else { return Ok(Ok(())) };
        let read = match self.reader.ask(request, Class::Setpoint).await {
            Ok(read) => read,
            Err(error @ BusError::Exception { .. }) => {
                return Ok(Err(format!("{what} cannot be read back: {error}")));
            }
            Err(error) => return Err(error),
        };
        let same = match cell.form {
            Form::F32 | Form::F64 => (cell.value(&read) - cell.value(&registers)).abs() < 0.01,
            _ => read == registers,
        };
        if same {
            return Ok(Ok(()));
        }
        Ok(Err(format!("{what} reads {}, {value} was written", cell.value(&read))))
    }

    /// The value in a register, if it can be read.
    pub(super) async fn read_back(&self, cell: Cell) -> Result<Option<f64>, BusError> {
        let Some(request) = cell.read_back() else { return Ok(None) };
        match self.reader.ask(request, Class::Reading).await {
            Ok(read) => Ok(Some(cell.value(&read))),
            Err(BusError::Exception { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
