//! Tariffs, named variables and formulas: commands, expiry, and the limits that formulas give.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::oneshot;

use super::{
    Ack, Control,
    handle::{CommandError, Synced},
};
use crate::{
    config::{Config, Role},
    explain::{Explanation, explain},
    formula::Name,
    grid::Wish,
    ids::EvseId,
    journal::Entry,
    rules,
    site::Note,
    store::StoreError,
    tariff::{self, Announcement, Tariffs},
    time::{Now, Wall},
    units::Watts,
    variable::{self, Variables},
};

/// How the issuer of a formula's limit begins. Such a limit is not kept over a restart: the formula is computed anew.
pub(super) const FORMULA: &str = "formula:";
/// A limit that follows measurements moves in steps of this size, and up only after [`RAISE`].
const STEP: i64 = 100;
const RAISE: Duration = Duration::from_secs(10);

/// A command about tariffs or variables.
#[derive(Debug)]
pub(crate) enum Order {
    /// Take an announcement in.
    Announce(Announcement, oneshot::Sender<Result<Synced<tariff::Change>, CommandError>>),
    /// Take one back.
    Withdraw {
        issuer: String,
        id: String,
        reply: oneshot::Sender<Result<Synced<tariff::Change>, CommandError>>,
    },
    /// Say why an EVSE gets what it gets.
    Explain(EvseId, oneshot::Sender<Option<Explanation>>),
    /// Set a variable, or take its setting back.
    Set(variable::Wish, oneshot::Sender<Result<Synced<variable::Change>, CommandError>>),
}

/// Tariffs and variables as they stand, for whoever shows them.
#[derive(Debug, Clone)]
pub struct Offers {
    config: Arc<Config>,
    /// Announcements.
    pub book: Arc<tariff::Book>,
    /// Variables.
    pub variables: Variables,
}

impl Offers {
    /// Nothing announced, nothing set.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let variables = Variables::new(&config.charging.variables, Vec::new());
        Self { config, book: Arc::default(), variables }
    }

    /// Prices and levels.
    #[must_use]
    pub fn tariffs(&self, now: Wall) -> Tariffs<'_> {
        let schedule = &self.config.charging.tariff;
        let variable = schedule.variable.as_ref().and_then(|by| self.variables.value(by.variable, now));
        Tariffs { schedule, book: &self.book, variable }
    }

    /// The EVSEs of the site.
    #[must_use]
    pub fn evses(&self) -> Vec<EvseId> {
        self.config.evses.iter().map(|e| e.id.clone()).collect()
    }
}

/// What a formula's limit was set to.
#[derive(Debug, Clone)]
pub(super) struct Given {
    watts: Watts,
    role: Role,
    at: Now,
}

impl Control {
    pub(super) fn order(&mut self, order: Order, now: Now) {
        // Whoever asked may have gone; what was asked holds all the same.
        match order {
            Order::Announce(new, reply) => drop(reply.send(self.announce(new, now))),
            Order::Withdraw { issuer, id, reply } => drop(reply.send(Ok(self.withdraw(&issuer, &id, now)))),
            Order::Explain(evse, reply) => drop(reply.send(explain(&self.site, &self.plan, &evse, now))),
            Order::Set(wish, reply) => drop(reply.send(self.set_variable(&wish, now))),
        }
    }

    fn announce(&mut self, new: Announcement, now: Now) -> Result<Synced<tariff::Change>, CommandError> {
        let evses: Vec<EvseId> = self.parts.config.evses.iter().map(|e| e.id.clone()).collect();
        let change = Arc::make_mut(&mut self.site.tariffs).announce(new.clone(), &evses, now.wall)?;
        if change == tariff::Change::None {
            // It may have been announced a moment ago: whatever was handed in before is stored before this.
            let stored = self.stored(Vec::new(), |_| Ok(()));
            return Ok(Synced { value: change, stored });
        }
        self.offers_changed();
        let body = json!({
            "sequence": new.sequence,
            "valid_from": new.valid_from,
            "valid_until": new.valid_until,
            "priority": new.priority,
            "evses": new.evses,
            "slots": new.slots,
            "zones": new.zones,
            "otherwise": new.otherwise,
        });
        let entry = entry("tariff.announced", &new.id, &new.issuer, body, now);
        let stored = self.stored(vec![entry], move |db| tariff::keep::remember(db, &new));
        Ok(Synced { value: change, stored })
    }

    fn withdraw(&mut self, issuer: &str, id: &str, now: Now) -> Synced<tariff::Change> {
        let Some(gone) = Arc::make_mut(&mut self.site.tariffs).withdraw(issuer, id) else {
            return Synced { value: tariff::Change::None, stored: self.stored(Vec::new(), |_| Ok(())) };
        };
        self.offers_changed();
        let entry = entry("tariff.withdrawn", id, issuer, json!({ "sequence": gone.sequence }), now);
        let stored = self.stored(vec![entry], move |db| tariff::keep::withdrawn(db, &gone));
        Synced { value: tariff::Change::Removed, stored }
    }

    fn set_variable(
        &mut self,
        wish: &variable::Wish,
        now: Now,
    ) -> Result<Synced<variable::Change>, CommandError> {
        let (at, change) = self.site.variables.set(wish, now.wall)?;
        if change == variable::Change::None {
            return Ok(Synced { value: change, stored: self.stored(Vec::new(), |_| Ok(())) });
        }
        self.offers_changed();
        // What follows from it leaves first.
        self.formulas(now);
        self.decide(now);
        let kind = if wish.value.is_some() { "variable.set" } else { "variable.cleared" };
        let body = json!({
            "value": wish.value,
            "role": wish.role.name(),
            "valid_until": wish.valid_until,
        });
        let entry = entry(kind, &wish.name, &wish.issuer, body, now);
        let setting = self.site.variables.iter().nth(at).and_then(|(_, setting)| setting.cloned());
        let name = wish.name.clone();
        let stored = self.stored(vec![entry], move |db| match &setting {
            Some(setting) => variable::keep::remember(db, &name, setting),
            None => variable::keep::forget(db, &name),
        });
        Ok(Synced { value: change, stored })
    }

    /// Journals and keeps; the receiver hears when both are synced.
    fn stored(
        &mut self,
        entries: Vec<Entry>,
        keep: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let written = self.parts.journal.append(entries);
        let kept = self.parts.store.submit(keep);
        let (reply, stored) = oneshot::channel();
        self.acks.push(Box::pin(async move {
            let gone = || StoreError::Unavailable("the writer is gone".to_owned());
            let written = written.await.unwrap_or_else(|_| Err(gone()));
            let result = written.and(kept.await.unwrap_or_else(|_| Err(gone())));
            Ack { limit: None, result, reply: Some(reply) }
        }));
        stored
    }

    pub(super) fn offers_changed(&mut self) {
        self.site.revision += 1;
        self.offers.send_replace(Arc::new(Offers {
            config: Arc::clone(&self.parts.config),
            book: Arc::clone(&self.site.tariffs),
            variables: self.site.variables.clone(),
        }));
    }

    /// What only time ends.
    pub(super) fn charging_ended(&mut self, now: Now) {
        let mut notes = Vec::new();
        if self.site.tariffs.by_priority().any(|known| known.valid_until <= now.wall) {
            for over in Arc::make_mut(&mut self.site.tariffs).expire(now.wall) {
                notes.push(Note::new("tariff.expired", &over.id, json!({ "issuer": over.issuer })));
                drop(self.parts.store.submit(move |db| tariff::keep::forget(db, &over)));
            }
        }
        for name in self.site.variables.expire(now.wall) {
            notes.push(Note::bare("variable.expired", &name));
            drop(self.parts.store.submit(move |db| variable::keep::forget(db, &name)));
        }
        if !notes.is_empty() {
            self.offers_changed();
            self.write(notes, now);
        }
    }

    /// Limits that formulas give. One without a value gives what the configuration says for that.
    pub(super) fn formulas(&mut self, now: Now) {
        let config = Arc::clone(&self.parts.config);
        for (at, limit) in config.charging.limits.iter().enumerate() {
            let look = |name| self.site.value(name, None, now);
            let measured = rules::measured(&limit.watts);
            let (watts, why) = match limit.watts.number(&look) {
                Ok(watts) => (whole(watts, measured), String::new()),
                Err(fault) => (limit.otherwise, format!(" has no value: {fault}")),
            };
            // It acts in the role of whoever set the variables that it depends on.
            let settings: Vec<_> = self.site.variables.iter().map(|(_, setting)| setting).collect();
            let mut role = Role::Installer;
            let mut because = Vec::new();
            for (name, text) in limit.watts.names() {
                let Name::Variable(variable) = name else { continue };
                let value = look(name).map_or_else(|| "unset".to_owned(), |value| rules::shown(&value));
                let by = match settings.get(variable).copied().flatten() {
                    Some(setting) => {
                        if setting.role == Role::Grid {
                            role = Role::Grid;
                        }
                        format!(" by {}", setting.issuer)
                    }
                    None => String::new(),
                };
                because.push(format!("{text} = {value}{by}"));
            }
            if let Some(given) = &self.formula_limits[at] {
                let rises = watts > given.watts && measured;
                let later = rises && now.mono.since(given.at.mono) < RAISE;
                if (given.watts == watts && given.role == role) || later {
                    continue;
                }
            }
            let by_whom =
                if because.is_empty() { String::new() } else { format!(" with {}", because.join(", ")) };
            let reason: String = format!("{}{why}{by_whom}", limit.watts.text()).chars().take(200).collect();
            let wish = Wish {
                id: Some(limit.id.clone()),
                issuer: format!("{FORMULA}{}", limit.id.as_str().trim_start_matches("formula-")),
                role,
                node: Some(config.nodes[limit.node].id.clone()),
                watts,
                percent: None,
                steps: Vec::new(),
                valid_from: None,
                valid_until: None,
                reason,
            };
            self.formula_limits[at] = Some(Given { watts, role, at: now });
            if let Err(error) = self.set_limit(wish, now) {
                tracing::error!(limit = %limit.id, %error, "the formula's limit was not set");
                self.formula_limits[at] = None;
            }
        }
    }
}

/// Whole watts, rounded down, never below 0; in steps where measurements move it all the time.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn whole(watts: f64, measured: bool) -> Watts {
    let watts = watts.floor().clamp(0.0, 100_000_000.0) as i64;
    Watts(if measured { watts / STEP * STEP } else { watts })
}

fn entry(kind: &str, subject: &str, actor: &str, body: serde_json::Value, now: Now) -> Entry {
    Entry { at: now.wall, kind: kind.to_owned(), subject: subject.to_owned(), actor: actor.to_owned(), body }
}
