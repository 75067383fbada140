//! What is answered here while the backend is away or slow (table in `v16::table`, rules G-28 to G-30).

use super::{
    super::{
        frame,
        queue::{Card, Op},
        table::{Kind, Offline, Up},
        v16::message::{self, IdTagInfo},
    },
    After, Boot, Live, Route,
};
use crate::time::{Now, Wall};

/// Heartbeat interval handed out with an acceptance.
const INTERVAL_S: u64 = 300;
/// When a station that was not accepted asks again.
const PENDING_INTERVAL_S: u64 = 60;

impl Route {
    /// Answers a CALL in the backend's place.
    pub(super) fn answer_here(&mut self, now: Now, call: Live) {
        let Live { asked, way, frame: text, id_tag, .. } = call;
        let offline = match way {
            Up::Live(offline) => offline,
            Up::Ordered if self.rules.backend.is_some() => {
                return self.keep(now, asked, Kind::Other, text, None, vec![]);
            }
            Up::Ordered | Up::Event | Up::Send | Up::Meter | Up::Durable(_) => Offline::Empty,
        };
        let payload = match offline {
            Offline::Boot => return self.boot_here(now, &asked, text),
            Offline::Time => message::heartbeat_answer(now.wall),
            Offline::Card => self.version.verdict_answer(&self.verdict(&id_tag, now.wall)),
            Offline::Empty => "{}".to_owned(),
            Offline::Fixed(payload) => payload.to_owned(),
            Offline::Unknown => return self.refuse(&asked, "NotImplemented", "the backend is not connected"),
        };
        self.reply(&asked, frame::result(&asked.id, &payload));
    }

    /// G-28: Accepted only if the backend has accepted this identity before. It hears of the boot first of all.
    fn boot_here(&mut self, now: Now, asked: &super::Asked, text: String) {
        let accepted = self.accepted || self.rules.backend.is_none();
        if self.rules.backend.is_some() {
            self.store(vec![Op::Boot(Some(text.clone()))], After::Nothing);
            self.boot = Some(Boot { frame: text, not_before: now.mono });
        }
        let interval = if accepted { INTERVAL_S } else { PENDING_INTERVAL_S };
        self.reply(asked, frame::result(&asked.id, &message::boot_answer(accepted, now.wall, interval)));
        self.booted();
    }

    /// The verdict on a card (G-30): the backend's list, what it said last, the site's own users, the policy. Whatever
    /// is out of date is refused (1.6 §3.5.4).
    pub(super) fn verdict(&self, id_tag: &str, now: Wall) -> IdTagInfo {
        let with = |status: &str| IdTagInfo { status: status.into(), ..IdTagInfo::default() };
        let key = id_tag.to_lowercase();
        let known = self.list.entries.get(&key).or_else(|| self.cards.get(&key).map(|card| &card.info));
        match known {
            Some(info) if Wall::parse(&info.expiry_date).is_some_and(|until| until <= now) => with("Expired"),
            // §7.2: this one speaks of a single moment, not of the card.
            Some(info) if info.status == "ConcurrentTx" => with("Accepted"),
            Some(info) => info.clone(),
            None if self.rules.users.contains(&key) || self.rules.accept_unknown => with("Accepted"),
            None => with("Invalid"),
        }
    }

    /// Why the card is not welcome, as far as that can be said here: by what is known of it, and while the backend
    /// cannot be asked also by the policy.
    pub(crate) fn refuses(&self, id_tag: &str, now: Wall) -> Option<String> {
        let verdict = self.verdict(id_tag, now).status;
        (verdict != "Accepted" && (self.knows(id_tag) || self.north.is_none())).then_some(verdict)
    }

    /// Whether anything was heard about the card.
    pub(super) fn knows(&self, id_tag: &str) -> bool {
        let key = id_tag.to_lowercase();
        self.list.entries.contains_key(&key) || self.cards.contains_key(&key)
    }

    /// Forgets what the backend said of single cards; its list stays.
    pub(super) fn forget_cards(&mut self) {
        if !self.cards.is_empty() {
            self.cards.clear();
            self.store(vec![Op::CardsGone], After::Nothing);
        }
    }

    /// Learns a card from a verdict of the backend.
    pub(super) fn learn(&mut self, id_tag: &str, info: Option<IdTagInfo>, now: Wall) -> Option<Op> {
        let info = info.filter(|i| !i.status.is_empty() && !id_tag.is_empty())?;
        let id_tag = id_tag.to_lowercase();
        let known = self.cards.get(&id_tag);
        // A card that is used all day is written once an hour.
        if known.is_some_and(|k| k.info == info && now.0.saturating_sub(k.heard.0) < 3_600_000) {
            return None;
        }
        let card = Card { id_tag: id_tag.clone(), info, heard: now };
        self.cards.insert(id_tag, card.clone());
        if self.cards.len() > super::super::queue::CARDS
            && let Some(oldest) = self.cards.values().min_by_key(|c| c.heard).map(|c| c.id_tag.clone())
        {
            self.cards.remove(&oldest);
        }
        Some(Op::Card(card))
    }
}
