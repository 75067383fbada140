//! Sources that must be heard from: heartbeats, failsafe values, and what ends when one is gone for good.

use serde_json::json;
use tokio::sync::oneshot;

use super::{
    Ack, Control, acts,
    handle::{CommandError, Synced},
};
use crate::{
    grid::{
        self, Change, Failsafe, Record, Refusal,
        guard::{Heard, State},
    },
    journal::Entry,
    site::{Note, Site, view::SourceView},
    store::StoreError,
    time::Now,
};

/// Takes up a failsafe value that was chosen before a restart.
pub(super) fn restore(site: &mut Site, chosen: &Failsafe) {
    let known = site.config.grid.sources.iter().position(|s| s.issuer == chosen.issuer);
    // A source that was taken out of the configuration has no say any more.
    if let Some(guard) = known.and_then(|g| site.guards.get_mut(g)) {
        guard.set_failsafe(chosen.watts, chosen.lasting);
    }
}

impl Control {
    fn source(&self, issuer: &str) -> Result<usize, CommandError> {
        let known = self.parts.config.grid.sources.iter().position(|s| s.issuer == issuer);
        known.ok_or_else(|| CommandError::NoSource(issuer.to_owned()))
    }

    /// A sign of life.
    pub(super) fn heartbeat(&mut self, issuer: &str, now: Now) -> Result<SourceView, CommandError> {
        let g = self.source(issuer)?;
        self.hear(g, Heard::Heartbeat, now);
        Ok(self.site.source_view(g, now))
    }

    /// A source set or ended a limit. Nothing happens for those that need not be heard from.
    pub(super) fn wrote(&mut self, issuer: &str, what: Heard, now: Now) {
        if let Ok(g) = self.source(issuer) {
            self.hear(g, what, now);
        }
    }

    fn hear(&mut self, g: usize, what: Heard, now: Now) {
        let before = self.site.guards[g].state();
        if self.site.guards[g].hear(what, now.mono) {
            let body = json!({ "from": before.name(), "state": self.site.guards[g].state().name() });
            let note = Note::new("source.state", &self.parts.config.grid.sources[g].issuer, body);
            self.write(vec![note], now);
        }
    }

    /// Another failsafe value; told once it is on the disk.
    pub(super) fn set_failsafe(
        &mut self,
        chosen: Failsafe,
        now: Now,
    ) -> Result<Synced<Change>, CommandError> {
        let g = self.source(&chosen.issuer)?;
        let invalid = |field, problem: String| CommandError::Refused(Refusal::Invalid { field, problem });
        if chosen.watts.0 < 0 {
            return Err(invalid("watts", format!("{} is negative; use 0 W or more", chosen.watts)));
        }
        let hours = chosen.lasting.as_secs() / 3600;
        if !(2..=24).contains(&hours) || chosen.lasting.as_secs() > 86_400 {
            let problem = format!("{} s is out of range; use 2 h to 24 h", chosen.lasting.as_secs());
            return Err(invalid("duration", problem));
        }
        if self.site.guards[g].failsafe() == (chosen.watts, chosen.lasting) {
            return Ok(Synced { value: Change::None, stored: acts::ready(Ok(())) });
        }
        self.site.guards[g].set_failsafe(chosen.watts, chosen.lasting);
        self.decide(now);
        let written = self.parts.journal.append(vec![Entry {
            at: now.wall,
            kind: "source.failsafe".to_owned(),
            subject: chosen.issuer.clone(),
            actor: chosen.issuer.clone(),
            body: json!({ "watts": chosen.watts.0, "seconds": chosen.lasting.as_secs() }),
        }]);
        let remembered = self.parts.store.submit(move |db| grid::remember_failsafe(db, &chosen));
        let (reply, stored) = oneshot::channel();
        self.acks.push(Box::pin(async move {
            let gone = || StoreError::Unavailable("the writer is gone".to_owned());
            let written = written.await.unwrap_or_else(|_| Err(gone()));
            let result = written.and(remembered.await.unwrap_or_else(|_| Err(gone())));
            Ack { limit: None, result, reply: Some(reply) }
        }));
        Ok(Synced { value: Change::Replaced, stored })
    }

    /// Ends the limits of sources that the site no longer waits for.
    pub(super) fn abandoned(&mut self, now: Now) -> Vec<Record> {
        let mut over = Vec::new();
        for (guard, source) in self.site.guards.iter().zip(&self.parts.config.grid.sources) {
            if guard.state() == State::UnlimitedAutonomous {
                let older =
                    self.site.limits.records().iter().any(|r| {
                        r.limit.issuer == source.issuer && !r.stage.ended() && !guard.alive(now.mono)
                    });
                if older {
                    over.extend(self.site.limits.abandon(&source.issuer, now.wall));
                }
            }
        }
        over
    }

    /// A limit has moved on to its next step.
    pub(super) fn stepped(&mut self, record: &Record, now: Now) {
        let watts = record.limit.watts_at(self.site.certain(now));
        let body = json!({ "step": record.step, "watts": watts.0 });
        self.write(vec![Note::new("limit.step", &record.limit.id, body)], now);
        let _ = self.limits.send(record.clone());
    }
}
