//! Commands: what they change, what they leave in the journal, when they are acknowledged.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::{
    Ack, Control,
    handle::{Command, CommandError, Synced},
};
use crate::{
    config::Role,
    grid::{self, Change, Limit, Record, Stage, Wish, guard::Heard},
    ids::LimitId,
    journal::Entry,
    site::Note,
    store::StoreError,
    time::Now,
};

/// How long a limit may be in force without evidence before storing it is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(10);

/// The journal's line about a limit.
pub(super) fn note(record: &Record, stage: Stage, actor: &str) -> Note {
    let limit = &record.limit;
    Note {
        kind: format!("limit.{}", stage.name()),
        subject: limit.id.to_string(),
        actor: actor.to_owned(),
        body: json!({
            "node": limit.node.as_str(),
            "watts": limit.watts.0,
            "percent": limit.percent,
            "steps": limit.steps,
            "owed_watts": record.owed.0,
            "issuer": limit.issuer,
            "role": limit.role.name(),
            "valid_from": limit.valid_from,
            "valid_until": limit.valid_until,
            "reason": limit.reason,
            "measured_watts": record.measured.map(|w| w.0),
        }),
    }
}

impl Control {
    pub(super) fn command(&mut self, command: Command) {
        let now = self.parts.clock.now();
        match command {
            Command::SetLimit(wish, reply) => {
                let outcome = self.set_limit(wish, now);
                // The caller may have gone; the limit holds all the same.
                let _ = reply.send(outcome);
            }
            Command::Charging(order) => self.order(order, now),
            Command::ClearLimit { id, issuer, role, reply } => {
                let outcome = self.clear_limit(&id, &issuer, role, now);
                let _ = reply.send(outcome);
            }
            Command::Heartbeat { issuer, reply } => {
                let _ = reply.send(self.heartbeat(&issuer, now));
            }
            Command::SetFailsafe { chosen, reply } => {
                let outcome = self.set_failsafe(chosen, now);
                let _ = reply.send(outcome);
            }
        }
    }

    pub(super) fn set_limit(
        &mut self,
        wish: Wish,
        now: Now,
    ) -> Result<Synced<(Limit, Change)>, CommandError> {
        let actor = wish.issuer.clone();
        let (record, change, superseded) = self.site.set_limit(wish, now, fresh_id)?;
        self.wrote(&actor, Heard::Limit, now);
        if change == Change::None && record.accepted.is_some() {
            return Ok(Synced { value: (record.limit, change), stored: ready(Ok(())) });
        }
        // Reduce first, write then.
        self.decide(now);
        if let Some(old) = superseded {
            self.told(&old, &actor, now);
        }
        let stored = self.keep(&record, &actor, now);
        Ok(Synced { value: (record.limit, change), stored })
    }

    /// Writes a limit's receipt and acceptance; the receiver hears when they are synced.
    fn keep(&mut self, record: &Record, actor: &str, now: Now) -> oneshot::Receiver<Result<(), StoreError>> {
        // Watchers hear of the receipt at once.
        let _ = self.limits.send(record.clone());
        let entries = [Stage::Received, Stage::Accepted]
            .map(|stage| {
                let note = note(record, stage, actor);
                Entry {
                    at: now.wall,
                    kind: note.kind,
                    subject: note.subject,
                    actor: note.actor,
                    body: note.body,
                }
            })
            .to_vec();
        let written = self.parts.journal.append(entries);
        let row = record.clone();
        let issuer = &record.limit.issuer;
        let lasting = !issuer.starts_with(CONTACT) && !issuer.starts_with(super::charging::FORMULA);
        let remembered =
            lasting.then(|| self.parts.store.submit(move |db| grid::remember(db, &row, now.wall)));
        let (reply, stored) = oneshot::channel();
        let limit = (record.limit.id.clone(), record.received);
        self.storing.push(limit.clone());
        self.acks.push(Box::pin(async move {
            let gone = || StoreError::Unavailable("the writer is gone".to_owned());
            let mut result = written.await.unwrap_or_else(|_| Err(gone()));
            if let Some(remembered) = remembered {
                result = result.and(remembered.await.unwrap_or_else(|_| Err(gone())));
            }
            Ack { limit: Some(limit), result, reply: Some(reply) }
        }));
        stored
    }

    fn clear_limit(
        &mut self,
        id: &LimitId,
        issuer: &str,
        role: Role,
        now: Now,
    ) -> Result<Synced<Change>, CommandError> {
        let Some(record) = self.site.limits.clear(id, issuer, role, now.wall).map_err(CommandError::from)?
        else {
            // Saying that there is no limit is a sign, too.
            self.wrote(issuer, Heard::NoLimit, now);
            return Ok(Synced { value: Change::None, stored: ready(Ok(())) });
        };
        self.wrote(issuer, Heard::NoLimit, now);
        self.decide(now);
        let _ = self.limits.send(record.clone());
        let note = note(&record, Stage::Cleared, issuer);
        let entry = Entry {
            at: now.wall,
            kind: note.kind,
            subject: note.subject,
            actor: note.actor,
            body: note.body,
        };
        let written = self.parts.journal.append(vec![entry]);
        let id = id.clone();
        let forgotten = self.parts.store.submit(move |db| grid::forget(db, &id));
        let (reply, stored) = oneshot::channel();
        self.acks.push(Box::pin(async move {
            let gone = || StoreError::Unavailable("the writer is gone".to_owned());
            let written = written.await.unwrap_or_else(|_| Err(gone()));
            let result = written.and(forgotten.await.unwrap_or_else(|_| Err(gone())));
            Ack { limit: None, result, reply: Some(reply) }
        }));
        Ok(Synced { value: Change::Removed, stored })
    }

    /// Contacts that ask for a limit, or no longer do. An unreadable contact asks for it.
    pub(super) fn contacts(&mut self, now: Now) {
        for c in 0..self.parts.config.contacts.len() {
            let config = self.parts.config.contacts[c].clone();
            let asks = self.site.contact_asks(c);
            let (limit, why) = asks.map_or((None, String::new()), |(watts, why)| (Some(watts), why));
            let standing = self.contact_limits[c];
            if limit == standing {
                continue;
            }
            let id = LimitId::new(&format!("contact-{}", config.id));
            let issuer = format!("{CONTACT}{}", config.id);
            if let Some(watts) = limit {
                let wish = Wish {
                    id: Some(id),
                    node: Some(self.parts.config.nodes[config.node].id.clone()),
                    reason: why,
                    ..Wish::new(&issuer, Role::Grid, watts)
                };
                match self.set_limit(wish, now) {
                    Ok(_) => self.contact_limits[c] = limit,
                    Err(error) => {
                        tracing::error!(contact = %config.id, %error, "the contact's limit was not set");
                    }
                }
            } else {
                match self.clear_limit(&id, &issuer, Role::Grid, now) {
                    Ok(_) => self.contact_limits[c] = None,
                    Err(error) => {
                        tracing::error!(contact = %config.id, %error, "the contact's limit was not cleared");
                    }
                }
            }
        }
    }

    /// Limits that are in force without evidence: the storage did not work when they came.
    pub(super) fn store_again(&mut self, now: Now) {
        let missing: Vec<Record> = self
            .site
            .limits
            .records()
            .iter()
            .filter(|r| !r.stage.ended() && r.accepted.is_none() && r.received + STORE_AGAIN <= now.wall)
            .filter(|r| !self.storing.contains(&(r.limit.id.clone(), r.received)))
            .cloned()
            .collect();
        for record in missing {
            let issuer = record.limit.issuer.clone();
            drop(self.keep(&record, &issuer, now));
        }
    }
}

/// How the issuer of a contact's limit begins. Such a limit is not kept over a restart: the contact is read anew.
const CONTACT: &str = "contact:";

pub(super) fn ready(result: Result<(), StoreError>) -> oneshot::Receiver<Result<(), StoreError>> {
    let (reply, stored) = oneshot::channel();
    let _ = reply.send(result);
    stored
}

fn fresh_id() -> LimitId {
    let id = uuid::Uuid::new_v4().simple().to_string();
    LimitId::new(&format!("L{}", &id[..12]))
}
