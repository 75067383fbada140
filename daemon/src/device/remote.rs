//! Switches that are told over HTTP or MQTT: outputs of relays like any other.
//!
//! In: whether it shall be closed. Out: what it says it is, or why it does not. Invariant: it is closed only while it is told so
//! again and again: its own timer opens it when nobody does; it is told to open when its output is dropped and when the daemon
//! ends.
//!
//! ```text
//! wanted changes, or a third of its timer is over: order → read back ─→ Is(wanted, state)
//!                                                    └ refused, silent, neither ─→ Failed, again after 1 s
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Definition,
    definition::document::{Look, Order, Switch},
    http::Client,
    line::{DigitalOutput, LineError},
    mqtt::{Broker, Link, Message, below},
};
use crate::{config::Line, ids::RelayId};

/// Before another try, and between two looks at one that is open.
const RETRY: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(5);
/// For the last order when the daemon ends.
const LAST: Duration = Duration::from_secs(2);

/// What a switch says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// Not heard of since the last change of what is wanted.
    Pending,
    /// What it is.
    Is(bool),
    /// Why it is not known.
    Failed(String),
}

/// The two ways to a switch.
#[derive(Debug)]
pub enum Way {
    /// Host and port.
    Http(String),
    /// Broker and the device's own topic.
    Mqtt(Broker, String),
}

#[derive(Debug)]
struct Handle {
    name: String,
    wanted: watch::Sender<bool>,
    said: watch::Sender<Said>,
}

/// The switches of a site, by the relay that they are.
#[derive(Debug, Clone, Default)]
pub struct Switches(Arc<HashMap<String, Arc<Handle>>>);

impl Switches {
    /// `switches`: relay, definition, way; hands each one's task to `spawn`.
    pub fn new<F>(
        switches: Vec<(RelayId, Arc<Definition>, Way)>,
        stop: &CancellationToken,
        mut spawn: F,
    ) -> Self
    where
        F: FnMut(BoxFuture<'static, ()>),
    {
        let mut handles = HashMap::new();
        for (relay, definition, way) in switches {
            let (Some(switch), Some(telling)) = (definition.switch.clone(), definition.telling.as_ref())
            else {
                continue;
            };
            let name = match &way {
                Way::Http(address) => format!("switch at {address}"),
                Way::Mqtt(_, topic) => format!("switch at {topic:?}"),
            };
            let (wanted, wishes) = watch::channel(false);
            let said = watch::Sender::new(Said::Pending);
            let body = match way {
                Way::Http(address) => Body::Http(Client::new(address, telling.answer)),
                Way::Mqtt(broker, own) => {
                    Body::Mqtt(Box::new(Told::new(broker, own, &switch.read, telling.answer)))
                }
            };
            let task = Task { switch, body, wanted: wishes, said: said.clone() };
            spawn(Box::pin(task.run(stop.clone())));
            handles.insert(relay.to_string(), Arc::new(Handle { name, wanted, said }));
        }
        Self(Arc::new(handles))
    }

    /// The output of a relay's line, open.
    pub fn open(&self, line: &Line) -> Result<Output, LineError> {
        let Line::Switch { relay, .. } = line else {
            return Err(LineError::Absent {
                what: "the switch".to_owned(),
                why: "it is no switch".to_owned(),
            });
        };
        let Some(handle) = self.0.get(relay.as_str()) else {
            let what = format!("the switch of relay {relay}");
            return Err(LineError::Absent { what, why: "it is not configured".to_owned() });
        };
        handle.said.send_replace(Said::Pending);
        handle.wanted.send_replace(false);
        Ok(Output(Arc::clone(handle)))
    }
}

/// A switch as an output.
#[derive(Debug)]
pub struct Output(Arc<Handle>);

impl Drop for Output {
    fn drop(&mut self) {
        self.0.wanted.send_replace(false);
    }
}

impl DigitalOutput for Output {
    fn set(&mut self, energised: bool) -> Result<(), LineError> {
        if *self.0.wanted.borrow() != energised {
            self.0.said.send_replace(Said::Pending);
            self.0.wanted.send_replace(energised);
        }
        Ok(())
    }

    fn read_back(&mut self) -> Result<Option<bool>, LineError> {
        match &*self.0.said.borrow() {
            Said::Pending => Ok(None),
            Said::Is(closed) => Ok(Some(*closed)),
            Said::Failed(why) => Err(LineError::Failed { what: self.0.name.clone(), why: why.clone() }),
        }
    }

    fn settled(&self) -> bool {
        *self.0.said.borrow() != Said::Pending
    }
}

struct Task {
    switch: Switch,
    body: Body,
    wanted: watch::Receiver<bool>,
    said: watch::Sender<Said>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
        // Nobody decides any more: open, if it still listens.
        let _ = timeout(LAST, self.body.order(&self.switch.off, false, &self.switch.read)).await;
    }

    /// Never ends.
    async fn follow(&mut self) {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            let order = if wanted { &self.switch.on } else { &self.switch.off };
            let outcome = self.body.order(order, wanted, &self.switch.read).await;
            // What was asked for meanwhile is not answered by this.
            let current = !self.wanted.has_changed().unwrap_or(false);
            let wait = match outcome {
                Ok(_) if wanted => self.switch.expires / 3,
                Ok(_) => LOOK,
                Err(_) => RETRY,
            };
            if current {
                self.said.send_if_modified(|said| {
                    let new = outcome.map_or_else(Said::Failed, Said::Is);
                    std::mem::replace(said, new.clone()) != new
                });
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { sleep(wait).await },
                () = sleep(wait) => {}
            }
        }
    }
}

enum Body {
    Http(Client),
    Mqtt(Box<Told>),
}

impl Body {
    /// Orders, and says what it is then.
    async fn order(&mut self, order: &Order, wanted: bool, look: &Look) -> Result<bool, String> {
        match self {
            Self::Http(client) => {
                client.ask(&order.place, order.body.as_deref()).await.map_err(|e| e.to_string())?;
                let answer = client.ask(&look.place, None).await.map_err(|e| e.to_string())?;
                look.state(&answer).map_err(|e| e.to_string())
            }
            Self::Mqtt(told) => told.order(order, wanted, look).await,
        }
    }
}

/// A switch that tells its state by itself.
struct Told {
    broker: Broker,
    own: String,
    messages: mpsc::Receiver<Message>,
    link: watch::Receiver<Link>,
    answer: Duration,
    /// What it said last on this connection.
    last: Option<Result<bool, String>>,
}

impl Told {
    fn new(broker: Broker, own: String, look: &Look, answer: Duration) -> Self {
        let messages = broker.listen(vec![below(&own, &look.place)]);
        let link = broker.link();
        Self { broker, own, messages, link, answer, last: None }
    }

    /// Publishes, and waits until it says that it does so.
    async fn order(&mut self, order: &Order, wanted: bool, look: &Look) -> Result<bool, String> {
        if self.link.has_changed().unwrap_or(true) {
            self.link.borrow_and_update();
            self.last = None;
        }
        while let Ok(message) = self.messages.try_recv() {
            self.take(&message, look);
        }
        self.broker.publish(&below(&self.own, &order.place), order.body.as_deref().unwrap_or_default())?;
        let until = Instant::now() + self.answer;
        // A state that was kept by the broker counts until the switch says another.
        while self.last != Some(Ok(wanted)) {
            match timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => self.take(&message, look),
                Ok(None) => return Err("the broker is gone".to_owned()),
                Err(_) => break,
            }
        }
        self.last.clone().unwrap_or_else(|| {
            Err(format!("says nothing under {:?} within {:?}", below(&self.own, &look.place), self.answer))
        })
    }

    fn take(&mut self, message: &Message, look: &Look) {
        self.last = Some(look.state(&message.payload).map_err(|e| e.to_string()));
    }
}
