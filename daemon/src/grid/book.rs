//! The list of limits: set, clear, let them expire, move them along their life.

use super::{Limit, Record, Stage, Step};
use crate::{
    config::Role,
    ids::{LimitId, NodeId},
    time::{Certain, Wall},
    units::Watts,
};

/// A limit as a caller wishes it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Name; chosen here if absent.
    pub id: Option<LimitId>,
    /// The authenticated caller.
    pub issuer: String,
    /// The caller's role.
    pub role: Role,
    /// Node; the grid connection if absent.
    pub node: Option<NodeId>,
    /// Power.
    pub watts: Watts,
    /// Share of the node's contract power, 0 to 100, instead of `watts`.
    pub percent: Option<u32>,
    /// What follows, in the order of time.
    pub steps: Vec<Step>,
    /// In force from; now if absent.
    pub valid_from: Option<Wall>,
    /// In force until; open if absent.
    pub valid_until: Option<Wall>,
    /// For the record.
    pub reason: String,
}

impl Wish {
    /// A limit at the grid connection from now until cleared.
    #[must_use]
    pub fn new(issuer: &str, role: Role, watts: Watts) -> Self {
        Self {
            id: None,
            issuer: issuer.to_owned(),
            role,
            node: None,
            watts,
            percent: None,
            steps: Vec::new(),
            valid_from: None,
            valid_until: None,
            reason: String::new(),
        }
    }
}

/// A node that can be limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub id: NodeId,
    /// Its contract power: what percent are of.
    pub contract: Option<Watts>,
    /// What its controllable devices are owed (Pmin).
    pub owed: Watts,
}

/// What a command changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there already.
    None,
    /// New.
    Created,
    /// Another one under this id is superseded.
    Replaced,
    /// Gone.
    Removed,
}

/// Why a wish is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The limit is another issuer's.
    #[error("limit \"{id}\" belongs to {owner}; only {owner} or an admin may change it")]
    NotYours {
        /// The limit.
        id: LimitId,
        /// Its issuer.
        owner: String,
    },
    /// Too many limits at once.
    #[error("{MOST} limits are in force already; clear some first")]
    Full,
}

/// Most limits that are not over at one time: bounds memory against a caller gone wild.
const MOST: usize = 256;
/// Most ended limits that are remembered for `ListLimits`; the journal keeps all.
const MOST_ENDED: usize = 256;
/// Most steps of one limit: a day of quarter hours.
const MOST_STEPS: usize = 96;
/// Highest power that is believed; above it, somebody mixed up the units.
const HIGHEST: Watts = Watts(100_000_000);

/// Every known limit, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Book {
    records: Vec<Record>,
}

impl Book {
    /// Starts with limits that were in force before a restart.
    #[must_use]
    pub fn with(records: Vec<Record>) -> Self {
        Self { records }
    }

    /// All, ended ones included.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Those that limit now.
    pub fn in_force(&self, now: impl Into<Certain>) -> impl Iterator<Item = &Record> {
        let now = now.into();
        self.records.iter().filter(move |r| r.in_force(now))
    }

    /// Checks a wish and puts it in force. Returns the record, what changed, and the superseded record if any.
    pub fn set(
        &mut self,
        wish: Wish,
        places: &[Place],
        now: Wall,
        fresh_id: impl FnOnce() -> LimitId,
    ) -> Result<(Record, Change, Option<Record>), Refusal> {
        let invalid = |field, problem: String| Err(Refusal::Invalid { field, problem });
        let Some(root) = places.first() else {
            return invalid("node", "this site has no node".to_owned());
        };
        let name = wish.node.unwrap_or_else(|| root.id.clone());
        let Some(place) = places.iter().find(|p| p.id == name) else {
            let known: Vec<_> = places.iter().map(|p| p.id.as_str()).collect();
            return invalid("node", format!("there is no node \"{name}\"; there are {}", known.join(", ")));
        };
        let watts = match (wish.percent, place.contract) {
            (None, _) => wish.watts,
            (Some(percent), _) if percent > 100 => {
                return invalid("percent", format!("{percent} is out of range; use 0 to 100"));
            }
            (Some(percent), Some(contract)) => Watts(contract.0.saturating_mul(i64::from(percent)) / 100),
            (Some(_), None) => {
                let mend =
                    format!("node \"{name}\" has no contract power that this could be a part of; use watts");
                return invalid("percent", mend);
            }
        };
        if let Some((field, problem)) = wrong_power(watts, &wish.steps) {
            return invalid(field, problem);
        }
        let valid_from = wish.valid_from.unwrap_or(now);
        if let Some(until) = wish.valid_until {
            if until <= valid_from {
                return invalid("valid_until", format!("{until} is not after the start {valid_from}"));
            }
            if until <= now {
                return invalid("valid_until", format!("{until} is over; it is {now}"));
            }
        }
        if let Some((field, problem)) = wrong_times(&wish.steps, valid_from, wish.valid_until) {
            return invalid(field, problem);
        }
        let standing = wish.id.as_ref().and_then(|id| self.standing(id));
        let id = wish.id.clone().unwrap_or_else(fresh_id);
        let mut limit = Limit {
            id,
            issuer: wish.issuer,
            role: wish.role,
            node: name,
            watts,
            percent: wish.percent,
            steps: wish.steps,
            valid_from,
            valid_until: wish.valid_until,
            reason: wish.reason,
        };
        let mut superseded = None;
        if let Some(at) = standing {
            let old = &mut self.records[at];
            if old.limit.issuer != limit.issuer && limit.role != Role::Admin {
                return Err(Refusal::NotYours { id: limit.id, owner: old.limit.issuer.clone() });
            }
            if wish.valid_from.is_none() && old.limit.valid_from <= now {
                // "From now" said twice is the same wish.
                limit.valid_from = old.limit.valid_from;
            }
            if old.limit == limit {
                return Ok((old.clone(), Change::None, None));
            }
            if wish.valid_from.is_none() {
                limit.valid_from = now;
            }
            old.stage = Stage::Superseded;
            old.ended = Some(now);
            superseded = Some(old.clone());
        } else if self.records.iter().filter(|r| !r.stage.ended()).count() >= MOST {
            return Err(Refusal::Full);
        }
        let record = Record {
            limit,
            stage: Stage::Received,
            received: now,
            accepted: None,
            applied: None,
            effective: None,
            ended: None,
            measured: None,
            owed: place.owed,
            step: 0,
        };
        self.records.push(record.clone());
        self.trim();
        let change = if superseded.is_some() { Change::Replaced } else { Change::Created };
        Ok((record, change, superseded))
    }

    /// Ends a limit. `None` if there is none under this id.
    pub fn clear(
        &mut self,
        id: &LimitId,
        issuer: &str,
        role: Role,
        now: Wall,
    ) -> Result<Option<Record>, Refusal> {
        let Some(at) = self.standing(id) else { return Ok(None) };
        let record = &mut self.records[at];
        if record.limit.issuer != issuer && role != Role::Admin {
            return Err(Refusal::NotYours { id: id.clone(), owner: record.limit.issuer.clone() });
        }
        record.stage = Stage::Cleared;
        record.ended = Some(now);
        Ok(Some(record.clone()))
    }

    /// Ends what is over by its own validity, and returns it.
    pub fn expire(&mut self, now: Wall) -> Vec<Record> {
        let mut over = Vec::new();
        for record in &mut self.records {
            if !record.stage.ended() && record.limit.valid_until.is_some_and(|until| until <= now) {
                record.stage = Stage::Expired;
                record.ended = Some(now);
                over.push(record.clone());
            }
        }
        over
    }

    /// Moves limits on to steps that have begun; returns those. What they kept before says nothing about the new value.
    pub fn step(&mut self, now: Wall) -> Vec<Record> {
        let mut moved = Vec::new();
        for record in self.records.iter_mut().filter(|r| !r.stage.ended()) {
            let begun = record.limit.steps.iter().filter(|step| step.from <= now).count();
            if begun != record.step {
                record.step = begun;
                (record.applied, record.effective, record.measured) = (None, None, None);
                record.stage = if record.accepted.is_some() { Stage::Accepted } else { Stage::Received };
                moved.push(record.clone());
            }
        }
        moved
    }

    /// Ends all limits of an issuer, because nobody stands behind them any more, and returns them.
    pub fn abandon(&mut self, issuer: &str, now: Wall) -> Vec<Record> {
        let mut over = Vec::new();
        for record in self.records.iter_mut().filter(|r| !r.stage.ended() && r.limit.issuer == issuer) {
            record.stage = Stage::Expired;
            record.ended = Some(now);
            over.push(record.clone());
        }
        over
    }

    /// Moves one limit on to `accepted`, `applied` or `effective`; returns it if that is news. The record is told
    /// by id and time of receipt, since an id may have been set anew in between.
    pub fn advance(
        &mut self,
        id: &LimitId,
        received: Wall,
        stage: Stage,
        measured: Option<Watts>,
        now: Wall,
    ) -> Option<Record> {
        let record = self
            .records
            .iter_mut()
            .rev()
            .find(|r| r.limit.id == *id && r.received == received && !r.stage.ended())?;
        let reached = match stage {
            Stage::Accepted => &mut record.accepted,
            Stage::Applied => &mut record.applied,
            Stage::Effective => &mut record.effective,
            _ => return None,
        };
        if reached.is_some() {
            return None;
        }
        *reached = Some(now);
        record.stage = record.stage.max(stage);
        if measured.is_some() {
            record.measured = measured;
        }
        Some(record.clone())
    }

    fn standing(&self, id: &LimitId) -> Option<usize> {
        self.records.iter().position(|r| r.limit.id == *id && !r.stage.ended())
    }

    fn trim(&mut self) {
        let ended = self.records.iter().filter(|r| r.stage.ended()).count();
        let mut surplus = ended.saturating_sub(MOST_ENDED);
        self.records.retain(|r| {
            let drop = surplus > 0 && r.stage.ended();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

fn wrong_power(watts: Watts, steps: &[Step]) -> Option<(&'static str, String)> {
    let all = std::iter::once(("watts", watts)).chain(steps.iter().map(|step| ("steps", step.watts)));
    for (field, watts) in all {
        if watts < Watts::ZERO {
            return Some((field, format!("{watts} is negative; a limit is 0 W or more")));
        }
        if watts > HIGHEST {
            return Some((field, format!("{watts} is more than {HIGHEST}; check the unit")));
        }
    }
    (steps.len() > MOST_STEPS).then(|| ("steps", format!("there are {}; at most {MOST_STEPS}", steps.len())))
}

fn wrong_times(steps: &[Step], from: Wall, until: Option<Wall>) -> Option<(&'static str, String)> {
    let mut before = from;
    for step in steps {
        if step.from <= before {
            return Some(("steps", format!("{} is not after {before}; steps follow each other", step.from)));
        }
        before = step.from;
    }
    let over = until.filter(|until| !steps.is_empty() && before >= *until)?;
    Some(("steps", format!("{before} is not before the end, {over}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_000_000);

    fn wish(id: &str, watts: i64) -> Wish {
        Wish { id: Some(LimitId::new(id)), ..Wish::new("uid:7", Role::Grid, Watts(watts)) }
    }

    fn set(book: &mut Book, wish: Wish, now: Wall) -> Result<(Record, Change, Option<Record>), Refusal> {
        let place = |id: &str, contract| Place { id: NodeId::new(id), contract, owed: Watts(7_560) };
        let places = [place("main", Some(Watts(40_000))), place("garage", None)];
        book.set(wish, &places, now, || LimitId::new("fresh"))
    }

    #[test]
    fn percent_are_of_the_contract_power() {
        let mut book = Book::default();
        let percent = |node: &str, percent| Wish {
            node: Some(NodeId::new(node)),
            percent: Some(percent),
            ..wish("p", 0)
        };
        assert_eq!(set(&mut book, percent("main", 30), NOW).unwrap().0.limit.watts, Watts(12_000));
        assert_eq!(set(&mut book, percent("main", 0), NOW).unwrap().0.limit.watts, Watts(0));
        for (wrong, says) in
            [(percent("garage", 30), "no contract power"), (percent("main", 101), "0 to 100")]
        {
            match set(&mut book, wrong, NOW) {
                Err(Refusal::Invalid { field: "percent", problem }) => assert!(problem.contains(says)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn steps_follow_in_time_and_are_obeyed_anew() {
        let mut book = Book::default();
        let step = |s: i64, watts| Step { from: Wall(NOW.0 + s * 1000), watts: Watts(watts) };
        let steps = vec![step(10, 0), step(20, 8_000)];
        let record = set(&mut book, Wish { steps: steps.clone(), ..wish("s", 5_000) }, NOW).unwrap().0;
        let at = |s: i64| Certain::from(Wall(NOW.0 + s * 1000));
        assert_eq!(
            [0, 9, 10, 19, 20, 99].map(|s| record.limit.watts_at(at(s)).0),
            [5_000, 5_000, 0, 0, 8_000, 8_000]
        );
        let unsure = Certain { earliest: at(5).earliest, latest: at(30).latest };
        assert_eq!(record.limit.watts_at(unsure), Watts(5_000));
        book.advance(&record.limit.id, NOW, Stage::Accepted, None, NOW).unwrap();
        book.advance(&record.limit.id, NOW, Stage::Applied, None, NOW).unwrap();
        assert!(book.step(Wall(NOW.0 + 9_000)).is_empty());
        let moved = book.step(Wall(NOW.0 + 10_000));
        assert_eq!((moved[0].stage, moved[0].applied, moved[0].step), (Stage::Accepted, None, 1));
        assert!(book.step(Wall(NOW.0 + 10_500)).is_empty());
        for wrong in [vec![step(20, 0), step(10, 0)], vec![step(0, 0)], vec![step(5, -1)]] {
            let refused = set(&mut book, Wish { steps: wrong, ..wish("w", 1) }, NOW).unwrap_err();
            assert!(matches!(refused, Refusal::Invalid { field: "steps", .. }), "{refused:?}");
        }
    }

    #[test]
    fn an_unsure_clock_begins_early_and_ends_late() {
        let mut book = Book::default();
        let window = Wish {
            valid_from: Some(Wall(NOW.0 + 10_000)),
            valid_until: Some(Wall(NOW.0 + 20_000)),
            ..wish("w", 0)
        };
        set(&mut book, window, NOW).unwrap();
        let count = |from: i64, to: i64| {
            let time = Certain { earliest: Wall(NOW.0 + from), latest: Wall(NOW.0 + to) };
            book.in_force(time).count()
        };
        assert_eq!([count(0, 9_999), count(0, 10_000), count(0, 90_000)], [0, 1, 1]);
        assert_eq!([count(19_999, 19_999), count(20_000, 20_000), count(20_000, 90_000)], [1, 0, 0]);
    }

    #[test]
    fn what_is_owed_is_kept_with_the_limit_and_never_refuses_it() {
        let record = set(&mut Book::default(), wish("low", 0), NOW).unwrap().0;
        assert_eq!((record.owed, record.limit.watts), (Watts(7_560), Watts(0)));
    }

    #[test]
    fn wrong_fields_are_named() {
        let mut book = Book::default();
        let cases: [(&str, Wish); 5] = [
            ("watts", wish("a", -1)),
            ("watts", wish("a", 1_000_000_000)),
            ("node", Wish { node: Some(NodeId::new("attic")), ..wish("a", 1) }),
            ("valid_until", Wish { valid_until: Some(Wall(1)), ..wish("a", 1) }),
            ("valid_until", Wish { valid_from: Some(Wall(5)), valid_until: Some(Wall(5)), ..wish("a", 1) }),
        ];
        for (field, wrong) in cases {
            match set(&mut book, wrong, NOW) {
                Err(Refusal::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{other:?}"),
            }
        }
        assert!(book.records().is_empty());
    }

    #[test]
    fn saying_it_twice_changes_nothing() {
        let mut book = Book::default();
        assert_eq!(set(&mut book, wish("a", 0), NOW).unwrap().1, Change::Created);
        assert_eq!(
            set(&mut book, wish("a", 0), NOW + std::time::Duration::from_secs(5)).unwrap().1,
            Change::None
        );
        let (_, change, old) = set(&mut book, wish("a", 10), NOW).unwrap();
        assert_eq!(change, Change::Replaced);
        assert_eq!(old.unwrap().stage, Stage::Superseded);
        assert_eq!(book.in_force(NOW).count(), 1);
    }

    #[test]
    fn issuers_keep_to_their_own() {
        let mut book = Book::default();
        set(&mut book, wish("a", 5), NOW).unwrap();
        let stranger = Wish { issuer: "uid:8".into(), ..wish("a", 9) };
        assert!(matches!(set(&mut book, stranger, NOW), Err(Refusal::NotYours { .. })));
        assert!(book.clear(&LimitId::new("a"), "uid:8", Role::Grid, NOW).is_err());
        assert!(book.clear(&LimitId::new("a"), "uid:0", Role::Admin, NOW).unwrap().is_some());
        assert!(book.clear(&LimitId::new("a"), "uid:0", Role::Admin, NOW).unwrap().is_none());
    }

    #[test]
    fn life_goes_forward_only() {
        let mut book = Book::default();
        let id = LimitId::new("a");
        let until = Wish { valid_until: Some(Wall(2_000_000)), ..wish("a", 5) };
        let received = set(&mut book, until, NOW).unwrap().0.received;
        let mut step = |stage, at: i64| book.advance(&id, received, stage, None, Wall(at)).map(|r| r.stage);
        assert_eq!(step(Stage::Applied, 1_000_001), Some(Stage::Applied));
        assert_eq!(
            step(Stage::Accepted, 1_000_002),
            Some(Stage::Applied),
            "accepted later does not step back"
        );
        assert_eq!(step(Stage::Accepted, 1_000_003), None);
        assert_eq!(step(Stage::Effective, 1_000_004), Some(Stage::Effective));
        assert!(book.expire(Wall(1_999_999)).is_empty());
        assert_eq!(book.in_force(Wall(1_999_999)).count(), 1);
        assert_eq!(book.in_force(Wall(2_000_000)).count(), 0);
        assert_eq!(book.expire(Wall(2_000_000)).len(), 1);
        assert_eq!(book.advance(&id, received, Stage::Effective, None, Wall(2_000_001)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut book = Book::default();
        for n in 0..10_000 {
            set(&mut book, wish("a", n), NOW).unwrap();
        }
        assert!(book.records().len() <= MOST_ENDED + 1);
        for n in 0..MOST {
            let _ = set(&mut book, wish(&format!("b{n}"), 1), NOW);
        }
        assert_eq!(set(&mut book, wish("one-more", 1), NOW).unwrap_err(), Refusal::Full);
    }
}
