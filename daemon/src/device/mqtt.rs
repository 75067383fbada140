//! Brokers: one connection each, for everything that is told or switched over MQTT.
//!
//! In: topics of interest, messages to publish. Out: messages, each to who asked for its topic; whether the connection stands.
//! Invariant: what could not be published at once never is: an order that waited would switch later. For brokers in the site's
//! own network: no TLS.
//!
//! ```text
//! (down: why) ── connected ──→ subscribes anew ──→ (up) ── message ──→ who asked for its topic
//!      ↑ wait 1 s                                    │
//!      └─────────────────── broken ←─────────────────┘   forgets what was not yet sent
//! ```

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Attachment, Config};

/// Wait before the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// How long a broker may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest message.
const MOST: usize = 64 * 1024;
/// Messages that may wait for who asked for them; what is more is lost, as with any broker.
const WAITING: usize = 64;
/// Orders that may wait for the connection's task.
const ORDERS: usize = 64;

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Whether the broker had kept it: then nobody knows since when.
    pub retained: bool,
}

/// Whether a broker is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The how manieth connection stands.
    Up(u64),
    /// Why it does not.
    Down(String),
}

#[derive(Debug)]
struct Interest {
    topics: Vec<String>,
    to: mpsc::Sender<Message>,
}

/// The way to a broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    client: AsyncClient,
    interests: Arc<Mutex<Vec<Interest>>>,
    link: watch::Receiver<Link>,
}

impl Broker {
    /// A broker, and its task, which keeps its connection until `stop`.
    pub fn new(
        config: &config::Broker,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        // Random, so that two sites on one broker do not throw each other out.
        let id = format!("ladewart-{:016x}", fastrand::u64(..));
        let mut options = MqttOptions::new(id, config.host.clone(), config.port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_max_packet_size(MOST, MOST);
        if let Some((user, password)) = &config.login {
            // A password file is text.
            options.set_credentials(user.clone(), String::from_utf8_lossy(password.bytes()));
        }
        let (client, events) = AsyncClient::new(options, ORDERS);
        let interests = Arc::new(Mutex::new(Vec::new()));
        let (told, link) = watch::channel(Link::Down("not connected yet".to_owned()));
        let keeper = Keeper {
            name: format!("broker {:?} at {}:{}", config.id, config.host, config.port),
            events,
            client: client.clone(),
            interests: Arc::clone(&interests),
            link: told,
            connections: 0,
        };
        let task = async move {
            stop.run_until_cancelled(keeper.keep()).await;
        };
        (Self { client, interests, link }, task)
    }

    /// What is published under these topics from now on.
    #[must_use]
    pub fn listen(&self, topics: Vec<String>) -> mpsc::Receiver<Message> {
        let (to, messages) = mpsc::channel(WAITING);
        if matches!(*self.link.borrow(), Link::Up(_)) {
            for topic in &topics {
                // With a full queue the connection is about to break, and subscribes all anew.
                let _ = self.client.try_subscribe(topic, QoS::AtLeastOnce);
            }
        }
        self.interests.lock().unwrap_or_else(PoisonError::into_inner).push(Interest { topics, to });
        messages
    }

    /// Whether it is there.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Publishes now, or says why not.
    pub fn publish(&self, topic: &str, payload: &str) -> Result<(), String> {
        if let Link::Down(why) = &*self.link.borrow() {
            return Err(why.clone());
        }
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|_| "the broker does not take it in time".to_owned())
    }
}

struct Keeper {
    name: String,
    events: EventLoop,
    client: AsyncClient,
    interests: Arc<Mutex<Vec<Interest>>>,
    link: watch::Sender<Link>,
    connections: u64,
}

impl Keeper {
    /// Never ends.
    async fn keep(mut self) {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => self.connected(),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let message =
                        Message { topic: publish.topic, payload: publish.payload, retained: publish.retain };
                    self.hand_on(&message);
                }
                Ok(_) => {}
                Err(error) => {
                    // Nothing of this connection is sent on the next one.
                    self.events.clean();
                    self.events.pending.clear();
                    let why = format!("{}: {}", self.name, words(&error));
                    let known = matches!(&*self.link.borrow(), Link::Down(before) if *before == why);
                    if !known {
                        tracing::warn!(why, "no connection");
                        self.link.send_replace(Link::Down(why));
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn connected(&mut self) {
        tracing::info!(broker = self.name, "connected");
        let interests = self.interests.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in interests.iter().flat_map(|i| &i.topics) {
            // The queue is empty: nothing is sent while the link is down.
            if self.client.try_subscribe(topic, QoS::AtLeastOnce).is_err() {
                tracing::error!(topic, "cannot be subscribed to: too many topics");
            }
        }
        drop(interests);
        self.connections += 1;
        self.link.send_replace(Link::Up(self.connections));
    }

    fn hand_on(&self, message: &Message) {
        let mut interests = self.interests.lock().unwrap_or_else(PoisonError::into_inner);
        interests.retain(|interest| {
            if interest.topics.contains(&message.topic)
                && let Err(mpsc::error::TrySendError::Full(_)) = interest.to.try_send(message.clone())
            {
                tracing::debug!(topic = message.topic, "a message was lost: too many at once");
            }
            !interest.to.is_closed()
        });
    }
}

fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "does not answer".to_owned(),
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => "refuses user and password".to_owned(),
        ConnectionError::MqttState(error) => format!("the connection broke: {error}"),
        other => other.to_string(),
    }
}

/// The brokers of a site, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Brokers(Vec<Broker>);

impl Brokers {
    /// Makes what the configuration names; hands each broker's task to `spawn`.
    pub fn new<F>(config: &Config, stop: &CancellationToken, mut spawn: F) -> Self
    where
        F: FnMut(BoxFuture<'static, ()>),
    {
        let one = |broker: &config::Broker| {
            let (broker, task) = Broker::new(broker, stop.clone());
            spawn(Box::pin(task));
            broker
        };
        Self(config.brokers.iter().map(one).collect())
    }

    /// The broker of a device of the same configuration, and the device's own topic.
    #[must_use]
    pub fn at<'a>(&self, at: &'a Attachment) -> Option<(Broker, &'a str)> {
        match at {
            Attachment::Topic { broker, topic } => self.0.get(*broker).cloned().map(|b| (b, topic.as_str())),
            _ => None,
        }
    }
}

/// A topic below a device's own.
#[must_use]
pub fn below(own: &str, place: &str) -> String {
    if place.is_empty() { own.to_owned() } else { format!("{own}/{place}") }
}
