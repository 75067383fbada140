//! Tariffs on their way to the site, one after the other.
//!
//! In: what the route heard of them. Out: announcements and withdrawals in the backend's name, and what became of each.
//! Invariant: a station speaks for its own EVSE; only a backend that serves the whole site speaks for all.

use std::{collections::VecDeque, future::Future, pin::Pin};

use super::super::route::tariffs::News;
use crate::{
    control::Handle,
    ids::EvseId,
    tariff::{Announcement, ocpp::TRANSACTION},
    time::Wall,
};

type Running = Pin<Box<dyn Future<Output = (Option<u64>, Result<(), String>)> + Send>>;

/// What waits, and what is on its way.
#[derive(Default)]
pub(super) struct Tariffs {
    waiting: VecDeque<(Option<u64>, News)>,
    running: Option<Running>,
}

/// In whose name.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) site: Handle,
    pub(super) evse: EvseId,
    /// The backend is the station's own: it speaks for this EVSE alone.
    pub(super) own: bool,
}

impl Tariffs {
    pub(super) fn push(&mut self, ticket: Option<u64>, news: News) {
        self.waiting.push_back((ticket, news));
    }

    /// Begins the next one if none is on its way.
    pub(super) fn begin(&mut self, speaker: &Speaker, now: Wall) {
        if self.running.is_none()
            && let Some((ticket, news)) = self.waiting.pop_front()
        {
            let speaker = speaker.clone();
            self.running = Some(Box::pin(async move { (ticket, speaker.carry(news, now).await) }));
        }
    }

    /// What became of the one that is on its way; never, if none is.
    pub(super) async fn done(&mut self) -> (Option<u64>, Result<(), String>) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        self.running = None;
        outcome
    }
}

impl Speaker {
    fn issuer(&self) -> String {
        if self.own { format!("backend:{}", self.evse) } else { "backend".to_owned() }
    }

    /// The announcements of this backend for this EVSE alone.
    fn mine(&self) -> Vec<Announcement> {
        let issuer = self.issuer();
        let alone = |known: &&Announcement| known.issuer == issuer && known.evses == [self.evse.clone()];
        self.site.offers().book.by_priority().filter(alone).cloned().collect()
    }

    /// The name under which the site knows a tariff of this EVSE.
    fn name(&self, tariff: &str) -> String {
        format!("{tariff}.{}", self.evse)
    }

    async fn carry(self, news: News, now: Wall) -> Result<(), String> {
        match news {
            News::Announced(mut new) => {
                new.issuer = self.issuer();
                if self.own {
                    if new.evses.iter().any(|evse| *evse != self.evse) {
                        return Err(format!("evses: this backend speaks for {} alone", self.evse));
                    }
                    new.evses = vec![self.evse.clone()];
                }
                self.announce(*new).await
            }
            News::Set(mut new) => {
                new.issuer = self.issuer();
                new.id = self.name(&new.id);
                new.evses = vec![self.evse.clone()];
                let before: Vec<Announcement> = self
                    .mine()
                    .into_iter()
                    .filter(|known| known.priority == new.priority && known.id != new.id)
                    .collect();
                // What stands goes only for what can stand in its place.
                let offers = self.site.offers();
                let mut book = (*offers.book).clone();
                for known in &before {
                    book.withdraw(&known.issuer, &known.id);
                }
                book.announce((*new).clone(), &offers.evses(), now).map_err(|e| e.to_string())?;
                self.withdraw(before).await?;
                self.announce(*new).await
            }
            News::Cleared(names) => {
                let over = |known: &Announcement| {
                    names.is_empty() || names.iter().any(|name| known.id == self.name(name))
                };
                let mine = self.mine().into_iter().filter(over).collect();
                self.withdraw(mine).await
            }
            News::TransactionOver => {
                let over = self.mine().into_iter().filter(|known| known.priority == TRANSACTION).collect();
                self.withdraw(over).await
            }
        }
    }

    async fn announce(&self, new: Announcement) -> Result<(), String> {
        self.site.announce(new).await.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn withdraw(&self, over: Vec<Announcement>) -> Result<(), String> {
        for known in over {
            self.site.withdraw(known.issuer, known.id).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}
