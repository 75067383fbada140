//! Devices that are told a power: one holding register on a bus.
//!
//! In: the power that the device may draw. Out: [`Event::Device`] with what it was told and read back, or why it does
//! not follow, once per reason. Invariant: a value counts as told only when it was read back; a device that cannot be
//! reached counts with all that it can draw, until it can. What it does without us is its own watchdog's matter; the
//! value is written again with each look, which feeds it.
//!
//! ```text
//! look or change: write, read back ──→ Device(Ok)
//!                       └ refused, wrong, silent, broken → Device(Err), again after 1 s
//! stop: write 0
//! ```

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    bus::{Ask, Bus, Class, Request},
    definition::Function,
};
use crate::{config, control::Events, ids::DeviceId, site::Event, units::Watts};

/// Time between two looks; feeds the device's watchdog.
const LOOK: Duration = Duration::from_secs(5);
/// How long a setpoint may wait for others on its bus.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells a device its power until `stop`; `bus` must outlive it for the last word.
pub async fn run(
    id: DeviceId,
    register: config::SetpointRegister,
    bus: Bus,
    mut wanted: watch::Receiver<Watts>,
    events: Events,
    stop: CancellationToken,
) {
    let mut task = Task { id, register, bus, events, told: None };
    stop.run_until_cancelled(task.follow(&mut wanted)).await;
    // Nobody decides any more: off, if it still listens.
    let _ = task.tell(Watts::ZERO).await;
}

struct Task {
    id: DeviceId,
    register: config::SetpointRegister,
    bus: Bus,
    events: Events,
    /// What the site knows.
    told: Option<Result<Watts, String>>,
}

impl Task {
    /// Never ends before it is dropped.
    async fn follow(&mut self, wanted: &mut watch::Receiver<Watts>) {
        loop {
            let watts = *wanted.borrow_and_update();
            let outcome = self.tell(watts).await;
            let failed = outcome.is_err();
            if self.told.as_ref() != Some(&outcome) {
                if let Err(why) = &outcome {
                    tracing::error!(device = %self.id, why, "does not take its setpoint");
                }
                // A full queue is told at the next look.
                if self.events.try_send(Event::Device(self.id.clone(), outcome.clone())).is_ok() {
                    self.told = Some(outcome);
                }
            }
            if failed {
                sleep(PAUSE).await;
            } else if let Ok(Err(_)) = timeout(LOOK, wanted.changed()).await {
                sleep(LOOK).await;
            }
        }
    }

    /// Writes the value and reads it back.
    async fn tell(&self, watts: Watts) -> Result<Watts, String> {
        let config::SetpointRegister { register, watts_per_step, .. } = self.register;
        // What does not divide is rounded down: never more than granted.
        let value = u16::try_from(watts.0.max(0) / watts_per_step.max(1)).unwrap_or(u16::MAX);
        self.call(Request::WriteOne { register, value }).await?;
        let read = Request::Read { function: Function::Holding, start: register, count: 1 };
        let read = self.call(read).await?;
        if read != [value] {
            return Err(format!("was told {value} in register {register}, holds {read:?}"));
        }
        Ok(Watts(i64::from(value) * watts_per_step))
    }

    async fn call(&self, request: Request) -> Result<Vec<u16>, String> {
        let (unit, rest) = (self.register.unit, Duration::ZERO);
        let ask = Ask { unit, request, class: Class::Setpoint, rest, patience: PATIENCE };
        self.bus.call(ask).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::{Arc, Mutex},
    };

    use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
    use tokio_modbus::{ExceptionCode, Request as Asked, Response, server::tcp::Server};

    use super::*;
    use crate::device::bus::{Pace, Wire};

    /// One register; it does not take values above 100.
    #[derive(Clone, Default)]
    struct Storage(Arc<Mutex<u16>>);

    impl tokio_modbus::server::Service for Storage {
        type Request = Asked<'static>;
        type Response = Response;
        type Exception = ExceptionCode;
        type Future = Ready<Result<Response, ExceptionCode>>;

        fn call(&self, request: Self::Request) -> Self::Future {
            let mut held = self.0.lock().unwrap();
            ready(match request {
                Asked::WriteSingleRegister(7, value) => {
                    *held = value.min(100);
                    Ok(Response::WriteSingleRegister(7, value))
                }
                Asked::ReadHoldingRegisters(7, 1) => Ok(Response::ReadHoldingRegisters(vec![*held])),
                _ => Err(ExceptionCode::IllegalDataAddress),
            })
        }
    }

    #[tokio::test]
    async fn a_power_is_told_read_back_and_taken_back_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let storage = Storage::default();
        let mut tasks = JoinSet::new();
        let served = storage.clone();
        tasks.spawn(async move {
            let serve = move |stream, _| {
                let served = served.clone();
                async move { Ok(Some((served, stream))) }
            };
            let _ = Server::new(listener).serve(&serve, |_| {}).await;
        });
        let (wanted, following) = watch::channel(Watts(5_050));
        let (events_in, mut events) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let at = config::Attachment::Address(address.clone());
        let register = config::SetpointRegister { at, unit: 1, register: 7, watts_per_step: 100 };
        let pace = Pace { answer: Duration::from_secs(20), ..Pace::default() };
        let (bus, task) = Bus::new(Wire::Tcp { address, pace }, CancellationToken::new());
        tasks.spawn(task);
        let mut running = JoinSet::new();
        running.spawn(run(DeviceId::new("store"), register, bus, following, events_in, stop.clone()));
        let mut next = async || match timeout(Duration::from_secs(20), events.recv()).await {
            Ok(Some(Event::Device(_, outcome))) => outcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, Ok(Watts(5_000)), "rounded down to a step");
        wanted.send_replace(Watts(20_000));
        assert!(next().await.unwrap_err().contains("was told 200"), "it holds 100");
        wanted.send_replace(Watts(800));
        assert_eq!(next().await, Ok(Watts(800)));
        stop.cancel();
        timeout(Duration::from_secs(20), running.join_next()).await.expect("stops").unwrap().unwrap();
        assert_eq!(*storage.0.lock().unwrap(), 0);
    }
}
