//! Devices that are told a power: one holding register over Modbus TCP.
//!
//! In: the power that the device may draw. Out: [`Event::Device`] with what it was told and read back, or why it does
//! not follow, once per reason. Invariant: a value counts as told only when it was read back; a device that cannot be
//! reached counts with all that it can draw, until it can. What it does without us is its own watchdog's matter; the
//! value is written again with each look, which feeds it.
//!
//! ```text
//! (away) ── connect ──→ (told) ── look or change: write, read back ──→ Device(Ok)
//!    ↑ wait 1 s             │ refused, wrong, silent, broken → Device(Err)
//!    └──────────────────────┘                                    stop: write 0
//! ```

use std::time::Duration;

use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_modbus::{
    Request, Response, Slave,
    client::{Client as _, Context, tcp},
};
use tokio_util::sync::CancellationToken;

use crate::{config, control::Events, ids::DeviceId, site::Event, units::Watts};

/// Time between two looks; feeds the device's watchdog.
const LOOK: Duration = Duration::from_secs(5);
/// For the connection and for one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells a device its power until `stop`.
pub async fn run(
    id: DeviceId,
    register: config::SetpointRegister,
    mut wanted: watch::Receiver<Watts>,
    events: Events,
    stop: CancellationToken,
) {
    let mut task = Task { id, register, events, told: None, context: None };
    stop.run_until_cancelled(task.follow(&mut wanted)).await;
    // Nobody decides any more: off, if it still listens.
    let _ = task.tell(Watts::ZERO).await;
}

struct Task {
    id: DeviceId,
    register: config::SetpointRegister,
    events: Events,
    /// What the site knows.
    told: Option<Result<Watts, String>>,
    context: Option<Context>,
}

impl Task {
    /// Never ends before it is dropped.
    async fn follow(&mut self, wanted: &mut watch::Receiver<Watts>) {
        loop {
            let watts = *wanted.borrow_and_update();
            let outcome = self.tell(watts).await;
            let failed = outcome.is_err();
            if failed {
                self.context = None;
            }
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
    async fn tell(&mut self, watts: Watts) -> Result<Watts, String> {
        let config::SetpointRegister { address, unit, register, watts_per_step } = self.register.clone();
        // What does not divide is rounded down: never more than granted.
        let value = u16::try_from(watts.0.max(0) / watts_per_step.max(1)).unwrap_or(u16::MAX);
        let mut context = match self.context.take() {
            Some(context) => context,
            None => match timeout(ANSWER, TcpStream::connect(&address)).await {
                Ok(Ok(stream)) => tcp::attach_slave(stream, Slave(unit)),
                Ok(Err(error)) => return Err(format!("no connection to {address}: {error}")),
                Err(_) => return Err(format!("no connection to {address} within {ANSWER:?}")),
            },
        };
        match call(&mut context, Request::WriteSingleRegister(register, value)).await? {
            Response::WriteSingleRegister(..) => {}
            other => return Err(format!("not an answer to a write: {other:?}")),
        }
        match call(&mut context, Request::ReadHoldingRegisters(register, 1)).await? {
            Response::ReadHoldingRegisters(read) if read == [value] => {}
            Response::ReadHoldingRegisters(read) => {
                return Err(format!("was told {value} in register {register}, holds {read:?}"));
            }
            other => return Err(format!("not an answer to a read: {other:?}")),
        }
        self.context = Some(context);
        Ok(Watts(i64::from(value) * watts_per_step))
    }
}

async fn call(context: &mut Context, request: Request<'static>) -> Result<Response, String> {
    match timeout(ANSWER, context.call(request)).await {
        Ok(Ok(Ok(response))) => Ok(response),
        Ok(Ok(Err(exception))) => Err(format!("refuses: {exception}")),
        Ok(Err(error)) => Err(format!("the connection broke: {error}")),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::{Arc, Mutex},
    };

    use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
    use tokio_modbus::{ExceptionCode, server::tcp::Server};

    use super::*;

    /// One register; it does not take values above 100.
    #[derive(Clone, Default)]
    struct Storage(Arc<Mutex<u16>>);

    impl tokio_modbus::server::Service for Storage {
        type Request = Request<'static>;
        type Response = Response;
        type Exception = ExceptionCode;
        type Future = Ready<Result<Response, ExceptionCode>>;

        fn call(&self, request: Self::Request) -> Self::Future {
            let mut held = self.0.lock().unwrap();
            ready(match request {
                Request::WriteSingleRegister(7, value) => {
                    *held = value.min(100);
                    Ok(Response::WriteSingleRegister(7, value))
                }
                Request::ReadHoldingRegisters(7, 1) => Ok(Response::ReadHoldingRegisters(vec![*held])),
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
        let register = config::SetpointRegister { address, unit: 1, register: 7, watts_per_step: 100 };
        let mut running = JoinSet::new();
        running.spawn(run(DeviceId::new("store"), register, following, events_in, stop.clone()));
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
