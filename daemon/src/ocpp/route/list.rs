//! The local authorisation list that the backend gives an EVSE (1.6 §5.15): kept here, too, because it is asked here
//! while the backend is away.

use std::collections::HashMap;

use serde::Deserialize;

use super::{super::queue::Op, After, Route, message};
use crate::ocpp::v16::message::IdTagInfo;

/// Most entries that are kept of an EVSE.
const MOST: usize = 20_000;

/// A change of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListUpdate {
    /// The list's version after it.
    pub(crate) version: i64,
    /// It takes the place of everything before.
    pub(crate) full: bool,
    /// Cards, in lower case; without a verdict they leave the list.
    pub(crate) entries: Vec<(String, Option<IdTagInfo>)>,
}

/// The list as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// 0: there is none.
    pub(crate) version: i64,
    /// By card in lower case.
    pub(crate) entries: HashMap<String, IdTagInfo>,
}

/// §6.41 SendLocalList.req.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SendLocalList {
    #[serde(deserialize_with = "message::int")]
    list_version: Option<i64>,
    #[serde(deserialize_with = "message::text")]
    update_type: String,
    #[serde(deserialize_with = "message::many")]
    local_authorization_list: Vec<Entry>,
}

/// §7.1 AuthorizationData.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    #[serde(deserialize_with = "message::text")]
    id_tag: String,
    #[serde(deserialize_with = "message::one")]
    id_tag_info: Option<IdTagInfo>,
}

/// Reads a SendLocalList.req.
pub(crate) fn read(payload: &str) -> Option<ListUpdate> {
    let message: SendLocalList = message::read(payload);
    let version = message.list_version.filter(|version| *version > 0)?;
    let entries = message.local_authorization_list.into_iter().filter(|e| !e.id_tag.is_empty());
    Some(ListUpdate {
        version,
        full: message.update_type == "Full",
        entries: entries
            .map(|e| (e.id_tag.to_lowercase(), e.id_tag_info.filter(|i| !i.status.is_empty())))
            .collect(),
    })
}

impl List {
    /// Carries out a change.
    pub(crate) fn update(&mut self, update: &ListUpdate) {
        if update.full {
            self.entries.clear();
        }
        self.version = update.version;
        for (id_tag, info) in &update.entries {
            match info {
                Some(info) if self.entries.len() < MOST || self.entries.contains_key(id_tag) => {
                    self.entries.insert(id_tag.clone(), info.clone());
                }
                Some(_) => tracing::warn!("the local authorisation list is longer than {MOST} entries"),
                None => drop(self.entries.remove(id_tag)),
            }
        }
    }
}

impl Route {
    /// The EVSE has taken a change of its list: we take it, too.
    pub(super) fn take_list(&mut self, update: ListUpdate) {
        self.list.update(&update);
        self.store(vec![Op::List(update)], After::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_adds_changes_and_removes() {
        let mut list = List::default();
        let full = r#"{"listVersion":1,"updateType":"Full","localAuthorizationList":[
            {"idTag":"Ada","idTagInfo":{"status":"Accepted"}},{"idTag":"ben","idTagInfo":{"status":"Blocked"}}]}"#;
        list.update(&read(full).unwrap());
        let difference = r#"{"listVersion":2,"updateType":"Differential","localAuthorizationList":[
            {"idTag":"BEN"},{"idTag":"cy","idTagInfo":{"status":"Accepted"}}]}"#;
        list.update(&read(difference).unwrap());
        let mut cards: Vec<_> = list.entries.keys().map(String::as_str).collect();
        cards.sort_unstable();
        assert_eq!((list.version, cards), (2, vec!["ada", "cy"]));
        list.update(&read(r#"{"listVersion":3,"updateType":"Full"}"#).unwrap());
        assert!(list.entries.is_empty());
        assert_eq!(read(r#"{"updateType":"Full"}"#), None, "without a version there is no list");
    }
}
