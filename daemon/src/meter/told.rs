//! What the site was told about a meter: each cause once, the next reading clears it.

use crate::{
    control::Events,
    ids::MeterId,
    site::{Event, event::Reading},
};

#[derive(Debug)]
pub(super) struct Told {
    id: MeterId,
    events: Events,
    cause: Option<String>,
}

impl Told {
    pub(super) const fn new(id: MeterId, events: Events) -> Self {
        Self { id, events, cause: None }
    }

    pub(super) async fn good(&mut self, reading: Reading) {
        if self.cause.take().is_some() {
            tracing::info!(meter = %self.id, "answers again");
        }
        self.tell(Event::Reading(self.id.clone(), reading)).await;
    }

    pub(super) async fn bad(&mut self, cause: &str, problem: String) {
        if self.cause.as_deref() == Some(cause) {
            return;
        }
        tracing::warn!(meter = %self.id, problem, "no reading");
        self.cause = Some(cause.to_owned());
        self.tell(Event::MeterProblem(self.id.clone(), problem)).await;
    }

    async fn tell(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            // The site is gone: the daemon is going down, and `stop` follows.
            std::future::pending::<()>().await;
        }
    }
}
