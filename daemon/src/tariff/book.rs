//! The list of announcements: take in, withdraw, let them end.

use std::collections::BTreeMap;

use super::{Announcement, Offer, Slot, overlap};
use crate::{ids::EvseId, time::Wall};

/// What a command changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there already.
    None,
    /// New.
    Created,
    /// A newer version.
    Replaced,
    /// Gone.
    Removed,
}

/// Why an announcement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its name in the message.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// An older version than the one that is known.
    #[error("sequence: {id:?} is at {known} already; announce a change with {}", known.saturating_add(1))]
    Stale {
        /// The announcement.
        id: String,
        /// The version that is known.
        known: u64,
    },
    /// The same version with other content.
    #[error(
        "sequence: {id:?} was announced as version {sequence} with other content; announce a change with {}",
        sequence.saturating_add(1)
    )]
    Changed {
        /// The announcement.
        id: String,
        /// The version.
        sequence: u64,
    },
    /// Two would hold at once.
    #[error(
        "{id:?} would hold together with {other:?} of {owner}, which has the same priority {priority}: withdraw \
         that, choose another priority, or keep their times or EVSEs apart"
    )]
    Overlap {
        /// The new one.
        id: String,
        /// The one that is there.
        other: String,
        /// Its issuer.
        owner: String,
        /// Of both.
        priority: u8,
    },
    /// Too many.
    #[error("{MOST} announcements are in force already; withdraw some first")]
    Full,
}

/// Most announcements at one time.
pub const MOST: usize = 512;
/// Most slots of one.
const SLOTS: usize = 3000;
/// Most zones of one.
const ZONES: usize = 100;
/// Most withdrawn names that are remembered.
const WITHDRAWN: usize = 256;

/// Every announcement that is not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// The highest priority first.
    known: Vec<Announcement>,
    /// The last version of those that were withdrawn, so that it does not come back by a repetition.
    withdrawn: BTreeMap<(String, String), u64>,
}

impl Book {
    /// Starts with what was known before a restart.
    #[must_use]
    pub fn with(known: Vec<Announcement>, withdrawn: Vec<(String, String, u64)>) -> Self {
        let mut book = Self { known, withdrawn: BTreeMap::new() };
        book.withdrawn.extend(withdrawn.into_iter().map(|(issuer, id, sequence)| ((issuer, id), sequence)));
        book.sort();
        book
    }

    /// All, the highest priority first.
    pub fn by_priority(&self) -> impl Iterator<Item = &Announcement> {
        self.known.iter()
    }

    fn sort(&mut self) {
        self.known.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
    }

    /// Takes an announcement in.
    pub fn announce(&mut self, new: Announcement, evses: &[EvseId], now: Wall) -> Result<Change, Refusal> {
        let same = |known: &Announcement| known.issuer == new.issuer && known.id == new.id;
        let standing = self.known.iter().position(same);
        if let Some(at) = standing {
            let known = &self.known[at];
            if known.sequence == new.sequence {
                // A repetition is no news, whatever else it would be.
                return if *known == new {
                    Ok(Change::None)
                } else {
                    Err(Refusal::Changed { id: new.id, sequence: new.sequence })
                };
            }
            if new.sequence < known.sequence {
                return Err(Refusal::Stale { id: new.id, known: known.sequence });
            }
        }
        if let Some(known) = self.withdrawn.get(&(new.issuer.clone(), new.id.clone()))
            && new.sequence <= *known
        {
            return Err(Refusal::Stale { id: new.id, known: *known });
        }
        check(&new, evses, now)?;
        let others = self.known.iter().enumerate().filter(|(at, _)| Some(*at) != standing);
        if let Some((_, other)) = others.into_iter().find(|(_, other)| conflict(&new, other)) {
            return Err(Refusal::Overlap {
                id: new.id,
                other: other.id.clone(),
                owner: other.issuer.clone(),
                priority: other.priority,
            });
        }
        if standing.is_none() && self.known.len() >= MOST {
            return Err(Refusal::Full);
        }
        self.withdrawn.remove(&(new.issuer.clone(), new.id.clone()));
        let change = match standing {
            Some(at) => {
                self.known[at] = new;
                Change::Replaced
            }
            None => {
                self.known.push(new);
                Change::Created
            }
        };
        self.sort();
        Ok(change)
    }

    /// Takes an announcement back. Gives what it was.
    pub fn withdraw(&mut self, issuer: &str, id: &str) -> Option<Announcement> {
        let at = self.known.iter().position(|known| known.issuer == issuer && known.id == id)?;
        let gone = self.known.remove(at);
        if self.withdrawn.len() >= WITHDRAWN {
            self.withdrawn.pop_first();
        }
        self.withdrawn.insert((gone.issuer.clone(), gone.id.clone()), gone.sequence);
        Some(gone)
    }

    /// Drops those that are over. Gives them.
    pub fn expire(&mut self, now: Wall) -> Vec<Announcement> {
        self.known.extract_if(.., |known| known.valid_until <= now).collect()
    }
}

fn invalid<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid { field: field.into(), problem: problem.into() })
}

fn check(new: &Announcement, evses: &[EvseId], now: Wall) -> Result<(), Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if new.id.is_empty() || new.id.len() > 64 || !new.id.bytes().all(fits) {
        return invalid("id", "is not a name; use 1 to 64 characters of A-Z a-z 0-9 . _ : -");
    }
    if new.valid_until <= new.valid_from {
        return invalid(
            "valid_until",
            format!("{} is not after the start {}", new.valid_until, new.valid_from),
        );
    }
    if new.valid_until <= now {
        return invalid("valid_until", format!("{} is over; it is {now}", new.valid_until));
    }
    if let Some(unknown) = new.evses.iter().find(|evse| !evses.contains(evse)) {
        let known: Vec<_> = evses.iter().map(EvseId::as_str).collect();
        return invalid("evses", format!("there is no EVSE \"{unknown}\"; there are {}", known.join(", ")));
    }
    if !new.slots.is_empty() && !new.zones.is_empty() {
        return invalid("zones", "stand beside slots; announce one of them");
    }
    if new.slots.is_empty() && new.zones.is_empty() && new.otherwise.is_empty() {
        return invalid("slots", "are missing; announce slots, zones, or what holds otherwise");
    }
    if new.slots.len() > SLOTS {
        return invalid("slots", format!("are {}; at most {SLOTS}", new.slots.len()));
    }
    if new.zones.len() > ZONES {
        return invalid("zones", format!("are {}; at most {ZONES}", new.zones.len()));
    }
    let mut before = new.valid_from;
    for (i, slot) in new.slots.iter().enumerate() {
        if slot.until <= slot.from {
            return invalid(
                format!("slots[{i}].until"),
                format!("{} is not after {}", slot.until, slot.from),
            );
        }
        if slot.from < before {
            let problem = match i {
                0 => format!("{} lies before valid_from, {}", slot.from, new.valid_from),
                _ => format!("{} lies before the end of the slot before, {before}", slot.from),
            };
            return invalid(format!("slots[{i}].from"), problem);
        }
        if slot.until > new.valid_until {
            let problem = format!("{} lies behind valid_until, {}", slot.until, new.valid_until);
            return invalid(format!("slots[{i}].until"), problem);
        }
        offer(&format!("slots[{i}]"), Offer { price: slot.price, level: slot.level })?;
        before = slot.until;
    }
    for (i, zone) in new.zones.iter().enumerate() {
        offer(&format!("zones[{i}]"), zone.offer())?;
        if let Some(other) = new.zones[..i].iter().position(|other| overlap(zone, other)) {
            return invalid(
                format!("zones[{i}]"),
                format!("holds together with zones[{other}], which has the same priority {}", zone.priority),
            );
        }
    }
    Ok(())
}

/// Highest price that is believed, either way: 100 EUR/kWh.
const DEAREST: i64 = 100_000_000;

fn offer(field: &str, offer: Offer) -> Result<(), Refusal> {
    if offer.is_empty() {
        return invalid(field, "says neither a price nor a level");
    }
    match offer.price {
        Some(price) if price.0.abs() > DEAREST => {
            invalid(format!("{field}.price"), format!("{price} is not believed; check the unit"))
        }
        _ => Ok(()),
    }
}

/// Whether two announcements would hold for the same EVSE at the same time with the same priority and say something
/// of the same kind.
fn conflict(a: &Announcement, b: &Announcement) -> bool {
    let ((ap, al), (bp, bl)) = (a.gives(), b.gives());
    let same_evse =
        a.evses.is_empty() || b.evses.is_empty() || a.evses.iter().any(|evse| b.evses.contains(evse));
    let validity = a.valid_from < b.valid_until && b.valid_from < a.valid_until;
    if a.priority != b.priority || !((ap && bp) || (al && bl)) || !same_evse || !validity {
        return false;
    }
    let only_slots = |x: &Announcement| x.zones.is_empty() && x.otherwise.is_empty();
    if only_slots(a) && only_slots(b) {
        return meet(&a.slots, &b.slots);
    }
    true
}

/// Whether two lists, each in order, share an instant.
fn meet(a: &[Slot], b: &[Slot]) -> bool {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        if x.from < y.until && y.from < x.until {
            return true;
        }
        if x.until <= y.from {
            a.next();
        } else {
            b.next();
        }
    }
    false
}
