//! Grid limits as the site has them: which is the smallest, who is gone, what time it is for them.

use std::sync::Arc;

use serde_json::json;

use super::{Note, Site, event::Level};
use crate::{
    config::Config,
    grid::{Change, Place, Record, Refusal, Wish, guard::State, pmin},
    ids::LimitId,
    time::{Certain, Now},
    units::Watts,
};

impl Site {
    /// The time as far as it is certain.
    #[must_use]
    pub fn certain(&self, now: Now) -> Certain {
        self.clock.certain(now)
    }

    /// Puts a limit in force. Returns the record, what changed, and the superseded record if any.
    pub fn set_limit(
        &mut self,
        wish: Wish,
        now: Now,
        fresh_id: impl FnOnce() -> LimitId,
    ) -> Result<(Record, Change, Option<Record>), Refusal> {
        let places = Arc::clone(&self.places);
        self.limits.set(wish, &places, now.wall, fresh_id)
    }

    /// The smallest limit from outside at a node, and its reason in words: a command, or the failsafe value of a source
    /// that is gone.
    #[must_use]
    pub fn smallest_limit(&self, node: usize, now: Now) -> Option<(Watts, String)> {
        let time = self.certain(now);
        let here = self.limits.in_force(time).filter(|r| r.limit.node == self.config.nodes[node].id);
        let command = here.min_by_key(|r| r.limit.watts_at(time)).map(|record| {
            let (limit, watts) = (&record.limit, record.limit.watts_at(time));
            (watts, format!("grid limit {} of {watts} by {}", limit.id, limit.issuer))
        });
        let sources = self.guards.iter().zip(&self.config.grid.sources).filter(|(_, s)| s.node == node);
        let failsafe = sources.filter_map(|(guard, source)| Some((guard.cap()?, guard, source)));
        let failsafe = failsafe.min_by_key(|(watts, ..)| *watts).map(|(watts, guard, source)| {
            let why = if guard.state() == State::Init { "is not heard yet" } else { "is silent" };
            (watts, format!("{} {why}: failsafe value of {watts}", source.issuer))
        });
        command.into_iter().chain(failsafe).min_by_key(|(watts, _)| *watts)
    }

    /// The limit that a contact asks for, and why. One that cannot be read asks for its strictest.
    #[must_use]
    pub fn contact_asks(&self, c: usize) -> Option<(Watts, String)> {
        let config = &self.config.contacts[c];
        let limited = config.limited_when_closed;
        let (limit, why) = match &self.contacts[c].level {
            Level::Closed => (config.limit(u8::from(limited)), "the contact is closed".to_owned()),
            Level::Open => (config.limit(u8::from(!limited)), "the contact is open".to_owned()),
            Level::Code(code) => (config.limit(*code), format!("the contacts show code {code}")),
            Level::Unreadable(why) => (config.strictest(), format!("the contact cannot be read: {why}")),
        };
        limit.map(|watts| (watts, why))
    }

    pub(super) fn look_at_source(&mut self, g: usize, now: Now, notes: &mut Vec<Note>) {
        let source = &self.config.grid.sources[g];
        let time = self.certain(now);
        let limits = self.limits.in_force(time).any(|r| r.limit.issuer == source.issuer);
        let guard = &mut self.guards[g];
        let before = guard.state();
        if guard.tick(limits, now.mono) {
            let (failsafe, _) = guard.failsafe();
            let body =
                json!({ "from": before.name(), "state": guard.state().name(), "failsafe_watts": failsafe.0 });
            notes.push(Note::new("source.state", &source.issuer, body));
        }
    }
}

pub(super) fn places(config: &Config) -> Arc<[Place]> {
    let place = |(n, node): (usize, &crate::config::Node)| Place {
        id: node.id.clone(),
        contract: node.contract,
        owed: pmin::minimum(pmin::count(config, n)).watts,
    };
    config.nodes.iter().enumerate().map(place).collect()
}
