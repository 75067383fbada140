//! Refused calls in log and journal, so that somebody who tries and tries fills neither.
//!
//! In: each refusal. Out: at most one entry per peer and minute, with the number of those before it that were left
//! out. Invariant: at most [`MOST`] peers are remembered.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;

use super::Peer;
use crate::{
    journal::{Entry, Journal},
    time::{Mono, Now},
};

/// One entry per peer within this time.
const APART: Duration = Duration::from_secs(60);
/// Most peers that are told apart; the rest share one place.
const MOST: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Mono,
    left_out: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Refusals {
    journal: Journal,
    told: Mutex<HashMap<String, Told>>,
}

impl Refusals {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, told: Mutex::default() }
    }

    /// Records a refusal, or counts it for the next entry.
    pub(super) fn refused(&self, peer: Option<&Peer>, method: &str, reason: &str, now: Now) {
        let mut key = peer.map_or_else(|| "nobody".to_owned(), Peer::key);
        tracing::debug!(caller = key, method, reason, "a call was refused");
        let left_out = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= MOST && !told.contains_key(&key) {
                told.retain(|_, told| now.mono.since(told.at) < APART);
                if told.len() >= MOST {
                    "others".clone_into(&mut key);
                }
            }
            match told.get_mut(&key) {
                Some(told) if now.mono.since(told.at) < APART => {
                    told.left_out += 1;
                    return;
                }
                before => {
                    let left_out = before.map_or(0, |told| told.left_out);
                    told.insert(key.clone(), Told { at: now.mono, left_out: 0 });
                    left_out
                }
            }
        };
        tracing::info!(caller = key, reason, left_out, "a call was refused");
        // Whatever the caller sent as a path is no evidence of anything: only what is part of the interface is named.
        let method = if super::authz::is_method(method) { method } else { "unknown" };
        let certificate = match peer {
            Some(Peer::Certificate(shown)) => Some(json!({
                "fingerprint": crate::identity::hex(&shown.fingerprint),
                "subject": shown.subject,
            })),
            _ => None,
        };
        // Whether it is stored or not changes nothing for the caller.
        drop(self.journal.append(vec![Entry {
            at: now.wall,
            kind: "call.refused".to_owned(),
            subject: method.to_owned(),
            actor: key,
            body: json!({ "reason": reason, "left_out": left_out, "certificate": certificate }),
        }]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::MIGRATIONS, store::Store, time::Wall};

    /// Everything handed in before is stored.
    async fn settled(journal: &Journal) {
        let mark = Entry {
            at: Wall(0),
            kind: "mark".into(),
            subject: String::new(),
            actor: String::new(),
            body: json!({}),
        };
        journal.append(vec![mark]).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn each_caller_gets_one_entry_a_minute_with_the_number_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _writer) = Store::open(dir.path(), MIGRATIONS).unwrap();
        let journal = Journal::new(store);
        let refusals = Refusals::new(journal.clone());
        let at = |s: u64| Now { mono: Mono(Duration::from_secs(s)), wall: Wall(0) };
        let known = super::super::authz::TABLE[0].0;
        for s in [0, 1, 59] {
            refusals.refused(Some(&Peer::User(Some(7))), known, "no", at(s));
        }
        refusals.refused(Some(&Peer::User(Some(8))), "/\u{1b}[2J", "no", at(2));
        refusals.refused(Some(&Peer::User(Some(7))), known, "no", at(60));
        settled(&journal).await;
        let entries = journal.page(1, 0, "call.refused", 100).await.unwrap();
        let entries: Vec<_> = entries
            .iter()
            .map(|e| {
                let body: serde_json::Value = serde_json::from_str(&e.body).unwrap();
                (e.actor.as_str(), e.subject.as_str(), body["left_out"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(entries, [("uid:7", known, 0), ("uid:8", "unknown", 0), ("uid:7", known, 2)]);
    }

    #[tokio::test]
    async fn more_strangers_than_there_is_room_for_share_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _writer) = Store::open(dir.path(), MIGRATIONS).unwrap();
        let journal = Journal::new(store);
        let refusals = Refusals::new(journal.clone());
        let now = Now { mono: Mono(Duration::ZERO), wall: Wall(0) };
        for uid in 0..3000 {
            refusals.refused(Some(&Peer::User(Some(uid))), "/", "no", now);
        }
        assert!(refusals.told.lock().unwrap().len() <= MOST + 1);
        settled(&journal).await;
        assert_eq!(journal.page(1, 0, "call.refused", 5000).await.unwrap().len(), MOST + 1);
    }
}
