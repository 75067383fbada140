//! Tariffs of the backend: what the site's rules can use is taken in here, and the EVSE hears it all the same.
//!
//! ```text
//!   DataTransfer of ours ─→ taken in ─────────────────────────────────────────→ Accepted, or why not
//!   SetDefaultTariff, ChangeTransactionTariff, ClearTariffs
//!     ─→ taken in, if it can be used ─→ EVSE ─┬─ it knows tariffs ────────────→ its answer
//!                                             └─ it does not, or is not there ─→ ours
//! ```
//!
//! In: the backend's CALLs, what became of them at the site. Out: [`Out::Tariff`], frames. Invariant: our Accepted
//! stands for what is stored; what the EVSE hears is what the backend sent, byte for byte.

use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        frame::{self, Id},
        table::SIGNED,
        v16::message,
    },
    Out, Route,
    south::{BackendCall, Then},
};
use crate::{
    tariff::{Announcement, ocpp},
    time::Now,
};

/// What the site shall do about tariffs. The issuer, and the EVSE where it is the station's, are filled in by whoever
/// carries it out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// An announcement as it is.
    Announced(Box<Announcement>),
    /// The EVSE's tariff, in the place of whatever this backend said for it with the same priority.
    Set(Box<Announcement>),
    /// The EVSE's tariffs of these names are over; without names, all.
    Cleared(Vec<String>),
    /// The transaction is over, and with it its tariff.
    TransactionOver,
}

/// A CALL of the backend that waits for what becomes of it at the site.
#[derive(Debug)]
pub(super) struct Pending {
    ticket: u64,
    north: u64,
    id: Id,
    /// What the EVSE shall hear; nothing of what is ours.
    frame: Option<String>,
    accepted: &'static str,
}

/// Answers of our own.
const SET: &str = r#"{"status":"Accepted"}"#;
const CLEARED: &str = r#"{"clearTariffsResult":[{"status":"Accepted"}]}"#;
/// Most CALLs that wait for the site.
const MOST: usize = 16;

impl Route {
    /// A CALL that may carry a tariff; gives what passes to the EVSE at once.
    pub(super) fn tariff(
        &mut self,
        now: Now,
        north: u64,
        id: Id,
        action: &str,
        payload: &str,
        text: &str,
    ) -> Option<BackendCall> {
        let pass =
            |id| Some(BackendCall { id, frame: text.to_owned(), north, then: Then::Relay, list: None });
        if action.ends_with(SIGNED) || self.tariffs.len() >= MOST {
            return pass(id);
        }
        let (news, accepted) = match action {
            "DataTransfer" => {
                let transfer: Transfer = message::read(payload);
                if (transfer.vendor_id.as_str(), transfer.message_id.as_str())
                    != (ocpp::VENDOR, ocpp::MESSAGE)
                {
                    return pass(id);
                }
                // `data` is a text in 1.6, anything in 2.x.
                let data = match &transfer.data {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let news = ocpp::data_transfer("", &data).map(|new| News::Announced(Box::new(new)));
                match news {
                    Ok(news) => self.take(news, Pending { ticket: 0, north, id, frame: None, accepted: SET }),
                    Err(why) => self.answer_north(north, frame::result(&id, &refused(&why.to_string()))),
                }
                return None;
            }
            "ClearTariffs" => {
                let wanted: Clear = message::read(payload);
                (Ok(News::Cleared(wanted.tariff_ids)), CLEARED)
            }
            "ChangeTransactionTariff" if self.running().is_none() => return pass(id),
            "ChangeTransactionTariff" => {
                (ocpp::transaction_tariff("", payload, now.wall).map(|new| News::Set(Box::new(new))), SET)
            }
            _ => (ocpp::set_tariff("", payload, None, now.wall).map(|new| News::Set(Box::new(new))), SET),
        };
        match news {
            Ok(news) => {
                let frame = Some(text.to_owned());
                self.take(news, Pending { ticket: 0, north, id, frame, accepted });
                None
            }
            Err(why) => {
                tracing::warn!(%why, action, "a tariff of the backend cannot be used by the site's rules");
                pass(id)
            }
        }
    }

    fn take(&mut self, news: News, pending: Pending) {
        self.tickets += 1;
        self.tariffs.push(Pending { ticket: self.tickets, ..pending });
        self.out.push_back(Out::Tariff { ticket: Some(self.tickets), news });
    }

    /// What became of a tariff at the site.
    pub(crate) fn tariff_taken(&mut self, now: Now, ticket: u64, outcome: &Result<(), String>) {
        let Some(at) = self.tariffs.iter().position(|pending| pending.ticket == ticket) else { return };
        let Pending { north, id, frame, accepted, .. } = self.tariffs.remove(at);
        if let Err(why) = outcome {
            tracing::warn!(why, "a tariff of the backend is not taken in");
        }
        match (frame, outcome) {
            (None, Ok(())) => self.answer_north(north, frame::result(&id, accepted)),
            (None, Err(why)) => self.answer_north(north, frame::result(&id, &refused(why))),
            (Some(_), Ok(())) if self.south.is_none() => {
                self.answer_north(north, frame::result(&id, accepted));
            }
            (Some(frame), outcome) => {
                let then = if outcome.is_ok() { Then::Tariff(accepted) } else { Then::Relay };
                self.call_south(BackendCall { id, frame, north, then, list: None });
            }
        }
        self.go_on(now);
    }
}

/// A `DataTransfer` that was understood and is not taken.
fn refused(why: &str) -> String {
    let why: String = why.chars().take(500).collect();
    json!({ "status": "Rejected", "data": why }).to_string()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Transfer {
    vendor_id: String,
    message_id: String,
    data: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Clear {
    tariff_ids: Vec<String>,
}
