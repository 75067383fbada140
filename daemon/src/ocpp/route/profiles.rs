//! The backend's charging profiles beside the site's limit (G-31 to G-36).
//!
//! The station's maximum is the site's purpose: the backend's profiles of that purpose are kept here and merged into the
//! one profile of ours, so that the lower limit holds. What is for transactions passes to the EVSE and is remembered:
//! it is set again after a reboot, and counts when somebody asks what holds. An EVSE that has room for one profile
//! (`merged`) gets that one: everything is kept here and merged.
//!
//! ```text
//!   SetChargingProfile ─┬─ maximum, or merged ─→ kept here ─→ our profile, set anew ─Accepted─→ Accepted
//!                       └─ else ─→ EVSE ─Accepted─→ remembered
//!   boot ─→ our profile ─→ the remembered ones, once more
//! ```

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{
        Version,
        frame::{self, Id, Number},
        profile::{Composite, Criteria, Profile, Purpose, steps},
        queue::{Op, SavedProfile},
    },
    After, Route,
    south::{BackendCall, Errand, Held, Then},
};
use crate::{
    time::{Now, Wall},
    units::Milliamps,
};

/// Most profiles of one backend for one EVSE.
const MOST: usize = 100;
/// How far ahead the time after a lease is looked at.
const AFTER_LEASE: Duration = Duration::from_secs(86_400);
/// Most periods of our profile that the backend's cause.
const MOST_PERIODS: usize = 8;
/// Longest time that a composite schedule tells of.
const LONGEST: i64 = 7 * 86_400;

/// A profile of the backend.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) profile: Profile,
    saved: SavedProfile,
    /// The EVSE has it; else it is merged into ours.
    installed: bool,
}

impl Kept {
    /// One from the last process.
    pub(super) fn loaded(saved: SavedProfile, merged: bool) -> Option<Self> {
        let profile = saved.version.profile(&saved.payload, saved.set).ok()?;
        let installed = profile.purpose != Purpose::Max && !merged;
        Some(Self { profile, saved, installed })
    }
}

impl Route {
    /// A `SetChargingProfile` of the backend: what the EVSE shall hear of it.
    pub(super) fn set_profile(
        &mut self,
        now: Now,
        north: u64,
        id: Id,
        payload: &str,
        frame: String,
    ) -> Option<BackendCall> {
        let profile = match self.version.profile(payload, now.wall) {
            Ok(profile) => profile,
            // The EVSE may read more into it than we do, but not into the site's own purpose.
            Err(why) if self.version.profile_mark(payload).0 == Purpose::Max => {
                tracing::warn!(why, "a profile of the backend cannot be read");
                self.answer_north(north, frame::result(&id, &self.version.profile_refused("InvalidProfile")));
                return None;
            }
            Err(_) => return Some(BackendCall { id, frame, north, then: Then::Relay, list: None }),
        };
        let restore = self.wish.avoid(profile.id);
        let known = self.profiles.iter().any(|k| k.profile.id == profile.id);
        if self.profiles.len() >= MOST && !known {
            self.note("the backend sets more charging profiles than are kept");
            self.answer_north(north, frame::result(&id, &self.version.profile_refused("TooManyElements")));
            return None;
        }
        let saved = SavedProfile {
            id: profile.id,
            version: self.version,
            payload: payload.to_owned(),
            set: now.wall,
        };
        let here = profile.purpose == Purpose::Max || self.merged && profile.purpose != Purpose::Other;
        let kept = Kept { profile, saved, installed: !here };
        if !here {
            let then = Then::Profile(Box::new(kept), restore);
            return Some(BackendCall { id, frame, north, then, list: None });
        }
        if self.south.is_none() {
            self.gone(north, &id);
            return None;
        }
        let number = kept.profile.id;
        self.remember(kept);
        let accepted = frame::result(&id, r#"{"status":"Accepted"}"#);
        let refused = frame::result(&id, &self.version.profile_refused("InternalError"));
        self.hold(Held { north, text: accepted, otherwise: Some((refused, number)), sent: false });
        None
    }

    /// Keeps an answer back until our profile, with all that is merged into it, is set.
    pub(super) fn hold(&mut self, held: Held) {
        self.wish.want_now(self.rules.rated);
        if let Some(south) = &mut self.south {
            south.held.push(held);
        }
    }

    /// Takes a profile up, in the place of those that it replaces (1.6 §5.16, K01.FR.05).
    pub(super) fn remember(&mut self, kept: Kept) {
        let new = &kept.profile;
        let replaces = |old: &Profile| {
            old.id == new.id
                || old.purpose == new.purpose
                    && old.level == new.level
                    && old.place == new.place
                    && old.transaction == new.transaction
        };
        let gone: Vec<i64> =
            self.profiles.iter().filter(|k| replaces(&k.profile)).map(|k| k.profile.id).collect();
        self.profiles.retain(|k| !gone.contains(&k.profile.id));
        let mut ops: Vec<_> = gone.into_iter().map(Op::ProfileGone).collect();
        ops.push(Op::Profile(Box::new(kept.saved.clone())));
        self.profiles.push(kept);
        self.store(ops, After::Nothing);
    }

    /// The EVSE refused what we merged: the profile never was.
    pub(super) fn forget_profile(&mut self, id: i64) {
        self.profiles.retain(|k| k.profile.id != id);
        self.store(vec![Op::ProfileGone(id)], After::Nothing);
    }

    /// Forgets what is picked; says whether there was any.
    pub(super) fn clear(&mut self, criteria: &Criteria) -> bool {
        let picked = |p: &Profile| criteria.picks(p.id, p.place, p.purpose, p.level);
        let gone: Vec<i64> =
            self.profiles.iter().filter(|k| picked(&k.profile)).map(|k| k.profile.id).collect();
        self.profiles.retain(|k| !gone.contains(&k.profile.id));
        if gone.is_empty() {
            return false;
        }
        self.store(gone.into_iter().map(Op::ProfileGone).collect(), After::Nothing);
        true
    }

    /// A `ClearChargingProfile` of the backend: what the EVSE shall hear of it.
    pub(super) fn clear_profiles(
        &mut self,
        north: u64,
        id: Id,
        payload: &str,
        frame: String,
    ) -> Option<BackendCall> {
        let criteria = self.version.clear_criteria(payload);
        let installed = |k: &Kept| k.installed && criteria.ids.contains(&k.profile.id);
        let ours_alone = !criteria.ids.is_empty()
            && !self.profiles.iter().any(installed)
            && (criteria.ids.iter().all(|id| self.wish.is_profile(*id))
                || self.profiles.iter().any(|k| criteria.ids.contains(&k.profile.id)));
        // Of the site's purpose the EVSE has our profile and no other.
        if self.merged || criteria.ids.is_empty() && criteria.purpose == Some(Purpose::Max) || ours_alone {
            let status = if self.clear(&criteria) { "Accepted" } else { "Unknown" };
            let text = frame::result(&id, &format!(r#"{{"status":"{status}"}}"#));
            if status == "Accepted" && self.south.is_some() {
                self.hold(Held { north, text, otherwise: None, sent: false });
            } else {
                self.answer_north(north, text);
            }
            return None;
        }
        // Connector and stack level are not looked at: boxes do not agree on what they match.
        let restore = criteria.ids.is_empty() && criteria.purpose.is_none_or(|p| p == Purpose::Max);
        Some(BackendCall { id, frame, north, then: Then::Clear(criteria, restore), list: None })
    }

    /// When the running transaction began.
    fn transaction_began(&self) -> Option<Wall> {
        self.transactions.last().filter(|t| !t.ended).map(|t| t.started)
    }

    /// A transaction is over: so are its profiles (1.6 §3.13.1, K02.FR.05).
    pub(super) fn end_tx_profiles(&mut self) {
        if self.transaction_began().is_none()
            && self.profiles.iter().any(|k| k.profile.purpose == Purpose::Tx)
        {
            let criteria = Criteria { purpose: Some(Purpose::Tx), ..Criteria::default() };
            self.clear(&criteria);
        }
    }

    /// The EVSE may have lost its profiles: those that it had are set again, behind our own.
    pub(super) fn install_again(&mut self) {
        let running = self.transaction_began().is_some();
        let wanted = |k: &&Kept| match k.profile.purpose {
            Purpose::TxDefault => k.installed && k.saved.version == self.version,
            Purpose::Tx => k.installed && k.saved.version == self.version && running,
            Purpose::Max | Purpose::Other => false,
        };
        let payloads: Vec<_> =
            self.profiles.iter().filter(wanted).map(|k| self.in_evse_terms(&k.saved.payload)).collect();
        if let Some(south) = &mut self.south {
            south.errands.retain(|e| !matches!(e, Errand::Profile(_)));
            south.errands.extend(payloads.into_iter().map(Errand::Profile));
        }
    }

    /// The payload with the transaction id that the EVSE knows.
    fn in_evse_terms(&self, payload: &str) -> String {
        let number = Number::find(payload, payload, &["csChargingProfiles", "transactionId"]);
        let known = number.and_then(|number| {
            let t = self.transactions.iter().rev().find(|t| t.backend_id == Some(number.value) && t.told)?;
            Some(number.put(payload, t.id))
        });
        known.unwrap_or_else(|| payload.to_owned())
    }

    /// The EVSE has told how many stack levels it knows: with one, it gets one profile.
    pub(super) fn learn_levels(&mut self, highest: i64) {
        let poor = highest <= 0;
        if !poor || self.merged {
            return;
        }
        tracing::info!("the EVSE knows one stack level: it gets one merged profile");
        self.merged = true;
        let mut gone = Vec::new();
        for kept in self.profiles.iter_mut().filter(|k| k.profile.purpose != Purpose::Other) {
            if std::mem::replace(&mut kept.installed, false) {
                gone.push(kept.profile.id);
            }
        }
        self.store(vec![Op::Merged(true)], After::Nothing);
        self.wish.want_now(self.rules.rated);
        if let Some(south) = &mut self.south {
            south.errands.extend(gone.into_iter().map(Errand::Clear));
        }
    }

    /// What of the backend's profiles is merged into ours, as it holds over the lease: instants, from now on.
    pub(super) fn merged_steps(
        &self,
        now: Wall,
        lease: Duration,
    ) -> (Vec<(Wall, Milliamps)>, Option<Milliamps>) {
        let here: Vec<Profile> =
            self.profiles.iter().filter(|k| !k.installed).map(|k| k.profile.clone()).collect();
        if here.is_empty() {
            return (Vec::new(), None);
        }
        let began = self.transaction_began();
        let unlimited = Milliamps(i64::MAX);
        let mut during: Vec<_> = steps(&here, now, lease, began)
            .into_iter()
            .map(|(at, limit)| (at, limit.unwrap_or(unlimited)))
            .collect();
        if during.len() > MOST_PERIODS {
            let lowest = during.iter().map(|(_, limit)| *limit).min().unwrap_or(Milliamps::ZERO);
            during = vec![(now, lowest)];
        }
        let after = steps(&here, now + lease, AFTER_LEASE, began);
        (during, after.into_iter().filter_map(|(_, limit)| limit).min())
    }

    /// What holds, as far as it is known: the site's limit, which is assumed to stay, and all profiles of the backend.
    pub(super) fn composite(&self, now: Now, payload: &str) -> String {
        let asked: Composite = self.version.composite_asked(payload);
        let all: Vec<Profile> = self.profiles.iter().map(|k| k.profile.clone()).collect();
        let duration = asked.duration.clamp(0, LONGEST);
        let length = Duration::from_secs(u64::try_from(duration).unwrap_or_default());
        let own = self.wish.limit().unwrap_or(self.rules.rated).min(self.rules.rated);
        let mut periods: Vec<(i64, Milliamps)> = Vec::new();
        for (at, limit) in steps(&all, now.wall, length, self.transaction_began()) {
            let limit = limit.map_or(own, |l| l.min(own));
            if periods.last().is_none_or(|(_, last)| *last != limit) {
                periods.push(((at.0 - now.wall.0) / 1000, limit));
            }
        }
        self.version.composite_answer(&asked, now.wall, duration, &periods, self.rules.phases)
    }

    /// A `GetChargingProfiles` of 2.x: the backend's own profiles, never ours (G-36).
    pub(super) fn tell_profiles(&mut self, north: u64, id: &Id, payload: &str) {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let criteria = Version::report_criteria(&payload);
        let picked: Vec<&Kept> = self
            .profiles
            .iter()
            .filter(|k| k.saved.version.is_2())
            .filter(|k| {
                let p = &k.profile;
                criteria.picks(p.id, p.place, p.purpose, p.level)
                    && criteria.place.is_none_or(|place| place == p.place)
            })
            .collect();
        let of_backend = Version::asks_for_backend(&payload);
        if picked.is_empty() || !of_backend {
            return self.answer_north(north, frame::result(id, r#"{"status":"NoProfiles"}"#));
        }
        let mut places: Vec<i64> = picked.iter().map(|k| k.profile.place).collect();
        places.sort_unstable();
        places.dedup();
        let last = places.len() - 1;
        let reports: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(at, place)| {
                let of_place = picked.iter().filter(|k| k.profile.place == *place);
                let profiles: Vec<_> = of_place.map(|k| Version::profile_value(&k.saved.payload)).collect();
                Version::report(&payload, *place, &profiles, at < last)
            })
            .collect();
        self.answer_north(north, frame::result(id, r#"{"status":"Accepted"}"#));
        for report in reports {
            let key = self.uuid();
            self.own_north.push_back(frame::call(&key, "ReportChargingProfiles", &report));
        }
    }
}
