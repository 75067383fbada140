//! Meters that tell JSON: asked over HTTP, or by themselves over MQTT.
//!
//! In: answers and messages. Out: the same events as from a meter on a bus. Invariant: a reading is stamped when its document
//! arrived; a message that the broker had kept counts only if it says itself how old it is; a meter that falls silent is told
//! after the definition's longest age.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    decode::{DecodeError, assemble},
    told::Told,
};
use crate::{
    clock::Clock,
    config,
    control::Events,
    device::{
        Definition, Quantity,
        definition::document::{DocumentError, Picked, Telling},
        http::{Client, HttpError},
        mqtt::{Broker, Link, Message, below},
    },
    site::event::Reading,
    time::Mono,
};

/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is not as the definition says.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Its values cannot be believed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The broker is not there.
    #[error("{0}")]
    Broker(String),
    /// Nothing was told for too long.
    #[error("nothing under {topic:?} for {within:?}; does the device publish there, and by itself?")]
    Silent {
        /// Where it should be.
        topic: String,
        /// How long it was waited for.
        within: Duration,
    },
}

impl Failure {
    fn cause(&self) -> String {
        match self {
            Self::Http(error) => error.cause(),
            Self::Document(error) => error.cause(),
            Self::Decode(error) => match error.quantity() {
                Some(quantity) => format!("implausible {quantity}"),
                None => "short".to_owned(),
            },
            Self::Broker(_) => "broker".to_owned(),
            Self::Silent { .. } => "silent".to_owned(),
        }
    }
}

/// Every value of all documents of a device that is asked, or why there is none.
pub async fn ask(client: &mut Client, telling: &Telling, clock: Clock) -> Result<Vec<Picked>, Failure> {
    let mut values = Vec::new();
    for document in &telling.documents {
        let answer = client.ask(&document.place, None).await?;
        values.extend(document.values(&answer, clock.now().wall, telling.max_age)?);
    }
    Ok(values)
}

/// The value, if the definition finds it plausible.
pub fn plausible(definition: &Definition, quantity: Quantity, value: f64) -> Result<f64, DecodeError> {
    super::decode::plausible(definition, quantity, value)
}

fn whole(values: Vec<Picked>) -> Result<Vec<(Quantity, f64)>, DocumentError> {
    values.into_iter().map(|(quantity, value)| Ok((quantity, value?))).collect()
}

/// Asks a meter over HTTP at its interval until `stop`.
pub async fn asked(
    config: config::Meter,
    definition: Arc<Definition>,
    address: String,
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let Some(telling) = definition.telling.clone() else { return };
    let mut told = Told::new(config.id.clone(), events);
    let mut client = Client::new(address, telling.answer);
    let reading = async |client: &mut Client| -> Result<Reading, Failure> {
        let values = whole(ask(client, &telling, clock).await?)?;
        Ok(assemble(&definition, &values, config.inverted, clock.now())?)
    };
    let asking = async {
        let mut ticks = interval(config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            match reading(&mut client).await {
                Ok(reading) => told.good(reading).await,
                Err(failure) => {
                    told.bad(&failure.cause(), failure.to_string()).await;
                    sleep(RETRY).await;
                }
            }
        }
    };
    stop.run_until_cancelled(asking).await;
}

/// Listens to a meter over MQTT until `stop`. `topic`: the device's own.
pub async fn listened(
    config: config::Meter,
    definition: Arc<Definition>,
    (broker, topic): (Broker, String),
    events: Events,
    clock: Clock,
    stop: CancellationToken,
) {
    let Some(telling) = definition.telling.clone() else { return };
    let topics: Vec<String> = telling.documents.iter().map(|d| below(&topic, &d.place)).collect();
    let listener = Listener {
        kept: vec![None; topics.len()],
        told: Told::new(config.id.clone(), events),
        topics,
        config,
        definition,
        telling,
        clock,
    };
    stop.run_until_cancelled(listener.listen(broker)).await;
}

/// When a document came, and what was in it.
type Kept = (Mono, Vec<(Quantity, f64)>);

struct Listener {
    config: config::Meter,
    definition: Arc<Definition>,
    telling: Telling,
    topics: Vec<String>,
    /// The values of each document, and when they came.
    kept: Vec<Option<Kept>>,
    told: Told,
    clock: Clock,
}

impl Listener {
    /// Never ends.
    async fn listen(mut self, broker: Broker) {
        let mut messages = broker.listen(self.topics.clone());
        let mut link = broker.link();
        let mut due = Instant::now() + self.telling.max_age;
        loop {
            let outcome = tokio::select! {
                Some(message) = messages.recv() => self.message(&message),
                Ok(()) = link.changed() => match &*link.borrow_and_update() {
                    Link::Up(_) => Ok(None),
                    Link::Down(why) => Err(Failure::Broker(why.clone())),
                },
                () = sleep_until(due) => {
                    due = Instant::now() + self.telling.max_age;
                    match &*link.borrow() {
                        Link::Up(_) => Err(Failure::Silent {
                            topic: self.topics[self.telling.main()].clone(),
                            within: self.telling.max_age,
                        }),
                        Link::Down(why) => Err(Failure::Broker(why.clone())),
                    }
                }
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(reading)) => {
                    due = Instant::now() + self.telling.max_age;
                    self.told.good(reading).await;
                }
                Err(failure) => self.told.bad(&failure.cause(), failure.to_string()).await,
            }
        }
    }

    /// Takes a message; a reading comes with the one that carries the currents.
    fn message(&mut self, message: &Message) -> Result<Option<Reading>, Failure> {
        let Some(at) = self.topics.iter().position(|t| *t == message.topic) else { return Ok(None) };
        let document = &self.telling.documents[at];
        if message.retained && document.time.is_none() {
            tracing::debug!(meter = %self.config.id, topic = message.topic, "kept by the broker: too old, perhaps");
            return Ok(None);
        }
        // A document that is wrong takes back what it said before.
        self.kept[at] = None;
        let now = self.clock.now();
        let values = whole(document.values(&message.payload, now.wall, self.telling.max_age)?)?;
        self.kept[at] = Some((now.mono, values));
        if at != self.telling.main() {
            return Ok(None);
        }
        let fresh = self.kept.iter().flatten().filter(|(at, _)| now.mono.since(*at) <= self.telling.max_age);
        let values: Vec<_> = fresh.flat_map(|(_, values)| values.iter().copied()).collect();
        Ok(Some(assemble(&self.definition, &values, self.config.inverted, now)?))
    }
}
