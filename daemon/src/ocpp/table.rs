//! Who answers whom: the ways a CALL can take, and the tables of all versions side by side.
//!
//! In: a version, an action and its direction. Out: its way. Invariant: every action of the official schemas has a way;
//! one that no table names passes to the EVSE, and towards the backend passes while it is there.
//!
//! The tables themselves are [`super::v16::table`] and [`super::v2::table`]; `routing.md` beside this file is made of
//! them, and a test holds it equal.

#[cfg(test)]
use std::fmt::Write as _;

use super::{Version, v2, v16};

/// The way of a CALL from the EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// Relayed while the backend is there, answered here otherwise.
    Live(Offline),
    /// Kept durably in every case, then sent in order; answered by the backend if that is quick, else here.
    Durable(Kind),
    /// `MeterValues`: durable if they belong to a transaction or to the clock-aligned record, else live.
    Meter,
    /// Relayed while the backend is there and nothing waits; otherwise kept in order and answered `{}`.
    Ordered,
    /// `NotifyEvent`: [`Up::Ordered`] if one of its events is an error or worse, else live.
    Event,
    /// SEND: relayed while the backend is there, dropped otherwise; never answered.
    Send,
}

/// The messages that make up a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `StartTransaction`.
    Start,
    /// `StopTransaction`.
    Stop,
    /// `MeterValues`.
    Meter,
    /// `TransactionEvent` of 2.x.
    Event,
    /// Anything else that is kept.
    Other,
}

/// The answer while the backend is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offline {
    /// Accepted if the backend accepted this identity before, else Pending; delivered first when it is back.
    Boot,
    /// Our time.
    Time,
    /// What is known of the card, else the configured policy.
    Card,
    /// `{}`; not delivered later.
    Empty,
    /// This payload; not delivered later.
    Fixed(&'static str),
    /// CALLERROR `NotImplemented`: nobody here can answer it.
    Unknown,
}

/// The refusal that most actions know.
pub(crate) const REJECTED: Offline = Offline::Fixed(r#"{"status":"Rejected"}"#);
/// The refusal of certificate business.
pub(crate) const FAILED: Offline = Offline::Fixed(r#"{"status":"Failed"}"#);

/// The way of an action that no table names.
pub(crate) const OTHER_UP: Up = Up::Live(Offline::Unknown);

/// The way of a CALL from the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// To the EVSE, byte for byte.
    Pass,
    /// To the EVSE, with the transaction id behind this path in the EVSE's own terms.
    Translate(&'static [&'static str]),
    /// `SetChargingProfile`: the station's maximum is kept here and merged with the site's limit; others as
    /// [`Down::Translate`], and kept in mind.
    SetProfile(&'static [&'static str]),
    /// `ClearChargingProfile`: what is kept here goes; to the EVSE only as far as it can have something of it; our
    /// limit is set again if it can be gone.
    ClearProfile,
    /// `GetCompositeSchedule`: answered here, where all limits are known.
    Composite,
    /// `GetChargingProfiles`: answered here, from what the backend has set.
    Profiles,
    /// `ChangeConfiguration`, `SetVariables`: to the EVSE, except what is about the connection: a password is for the
    /// backend's leg and taken here, an address or a lower security is refused.
    Settings,
    /// `SetNetworkProfile`: refused here; where the EVSE connects is the site's.
    Network,
    /// What may tell how many stack levels the EVSE knows: to the EVSE, byte for byte.
    Levels,
    /// `GetTransactionStatus`: to the EVSE; what waits here counts as waiting there.
    TransactionStatus,
    /// `ClearCache`: to the EVSE; what was learned of cards here goes, too.
    ClearCache,
    /// `InstallCertificate`: to the EVSE, except the root of the backend itself: the EVSE's backend is here.
    Certificate,
    /// SEND: to the EVSE, without an answer.
    Send,
}

/// The way of an action of the EVSE. A signed message goes the way of what it signs (2.0.1 Part 4 §7).
pub(crate) fn up(version: Version, action: &str) -> Up {
    find(ups(version), plain(action)).unwrap_or(OTHER_UP)
}

/// The way of an action of the backend.
pub(crate) fn down(version: Version, action: &str) -> Down {
    find(downs(version), plain(action)).unwrap_or(Down::Pass)
}

/// The action without the mark of a signed message.
pub(crate) fn plain(action: &str) -> &str {
    action.strip_suffix(SIGNED).unwrap_or(action)
}

/// The mark of a signed message.
pub(crate) const SIGNED: &str = "-Signed";

type Tables<T> = &'static [&'static [(&'static str, T)]];

fn ups(version: Version) -> Tables<Up> {
    match version {
        Version::V16 => &[v16::table::UP],
        Version::V201 => &[v2::table::UP],
        Version::V21 => &[v2::table::UP, v2::table::UP_21],
    }
}

fn downs(version: Version) -> Tables<Down> {
    match version {
        Version::V16 => &[v16::table::DOWN],
        Version::V201 => &[v2::table::DOWN],
        Version::V21 => &[v2::table::DOWN, v2::table::DOWN_21],
    }
}

fn find<T: Copy>(tables: Tables<T>, action: &str) -> Option<T> {
    tables.iter().flat_map(|t| t.iter()).find(|(name, _)| *name == action).map(|(_, way)| *way)
}

/// The tables as a document.
#[cfg(test)]
fn document() -> String {
    let mut text = String::from(HEAD);
    for version in Version::ALL.into_iter().rev() {
        let _ = write!(
            text,
            "\n## OCPP {version}\n\n### From the EVSE\n\n| action | backend there | backend away | delivered later \
             |\n|---|---|---|---|\n"
        );
        for (action, way) in sorted(ups(version)) {
            let [there, away, later] = way_up(way);
            let _ = writeln!(text, "| {action} | {there} | {away} | {later} |");
        }
        let [there, away, later] = way_up(OTHER_UP);
        let _ = writeln!(text, "| *any other* | {there} | {away} | {later} |");
        text.push_str("\n### From the backend\n\n| action | EVSE there | EVSE away |\n|---|---|---|\n");
        for (action, way) in sorted(downs(version)) {
            let [there, away] = way_down(way);
            let _ = writeln!(text, "| {action} | {there} | {away} |");
        }
        let [there, away] = way_down(Down::Pass);
        let _ = writeln!(text, "| *any other* | {there} | {away} |");
    }
    text
}

#[cfg(test)]
const HEAD: &str = "# Who answers whom

Made from `table.rs`, `v16/table.rs` and `v2/table.rs`; a test holds it equal. `passes` means byte for byte. What passes
to the backend takes the order: BootNotification, then what is live, then what is kept. \"Backend away\" is `resident`
mode; in `strict` mode the EVSE is away as long as its backend is.
";

#[cfg(test)]
fn sorted<T: Copy>(tables: Tables<T>) -> Vec<(&'static str, T)> {
    let mut rows: Vec<_> = tables.iter().flat_map(|t| t.iter().copied()).collect();
    rows.sort_unstable_by_key(|(action, _)| *action);
    rows
}

#[cfg(test)]
fn way_up(way: Up) -> [String; 3] {
    let texts = |there: &str, away: &str, later: &str| [there.into(), away.into(), later.into()];
    match way {
        Up::Live(offline) => {
            let (away, later) = match offline {
                Offline::Boot => ("Accepted if the backend accepted it before, else Pending", "yes, first"),
                Offline::Time => ("our time", "no"),
                Offline::Card => ("what is known of the card, else the policy", "no"),
                Offline::Empty => ("`{}`", "no"),
                Offline::Fixed(payload) => return ["passes".into(), format!("`{payload}`"), "no".into()],
                Offline::Unknown => ("CALLERROR `NotImplemented`", "no"),
            };
            texts("passes", away, later)
        }
        Up::Durable(Kind::Start) => {
            texts("kept, then passes", "provisional id, verdict on the card", "yes, in order")
        }
        Up::Durable(Kind::Event) => texts(
            "kept, then passes",
            "`{}` or the verdict on the card",
            "yes, in order, with `offline: true`",
        ),
        Up::Durable(_) => texts("kept, then passes", "`{}` or the verdict on the card", "yes, in order"),
        Up::Meter => texts(
            "kept if of a transaction or clock-aligned; passes",
            "`{}`",
            "yes, in order, if of a transaction or clock-aligned",
        ),
        Up::Ordered => texts("passes", "`{}`", "yes, in order"),
        Up::Event => texts("passes", "`{}`", "yes, in order, if an error or worse"),
        Up::Send => texts("passes", "dropped", "no"),
    }
}

#[cfg(test)]
fn way_down(way: Down) -> [&'static str; 2] {
    const GONE: &str = "CALLERROR `GenericError`";
    match way {
        Down::Pass | Down::Levels => ["passes", GONE],
        Down::Settings => [
            "passes; a password is taken here for the backend's leg, another address or security is refused",
            GONE,
        ],
        Down::Network => ["refused here: where the EVSE connects is the site's", "as before"],
        Down::Composite => ["answered here: the site's limit and all profiles of the backend", "as before"],
        Down::Profiles => ["answered here: the backend's own profiles, never ours", "as before"],
        Down::Translate(_) => ["passes, with the transaction id that the EVSE knows", GONE],
        Down::SetProfile(_) => [
            "the station's maximum is kept here and merged with the site's limit; others pass and are kept",
            GONE,
        ],
        Down::ClearProfile => ["what is kept here goes; passes for the others; our limit is set again", GONE],
        Down::TransactionStatus => ["passes; what waits here counts as waiting there", GONE],
        Down::ClearCache => ["passes; what was learned of cards here goes, too", GONE],
        Down::Certificate => {
            ["passes; the backend's own root is refused: whom the EVSE's leg trusts is the site's", GONE]
        }
        Down::Send => ["passes", "dropped"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_up_to_date() {
        // Asked when it runs, not when it is built: packaged tests run where there is no tree, and name no build path.
        let Some(tree) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
        let path = std::path::Path::new(&tree).join("src/ocpp/routing.md");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let made = document();
        if written != made && std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        assert!(written == made, "routing.md differs from the code; run the test with UPDATE_DOCS=1");
    }

    #[test]
    fn transactions_are_never_live() {
        assert_eq!(up(Version::V16, "StartTransaction"), Up::Durable(Kind::Start));
        assert_eq!(up(Version::V16, "StopTransaction"), Up::Durable(Kind::Stop));
        for version in [Version::V201, Version::V21] {
            assert_eq!(up(version, "TransactionEvent"), Up::Durable(Kind::Event));
            assert_eq!(up(version, "TransactionEvent-Signed"), Up::Durable(Kind::Event));
        }
        assert_eq!(up(Version::V16, "startTransaction"), OTHER_UP);
        assert_eq!(up(Version::V201, "StartTransaction"), OTHER_UP, "of another version");
        assert_eq!(up(Version::V201, "NotifySettlement"), OTHER_UP, "of a later version");
        assert_eq!(down(Version::V16, "RemoteStartTransaction"), Down::Pass);
    }

    #[test]
    fn no_action_is_named_twice() {
        for version in Version::ALL {
            let (up, down) = (sorted(ups(version)), sorted(downs(version)));
            assert!(up.windows(2).all(|w| w[0].0 != w[1].0), "{version}");
            assert!(down.windows(2).all(|w| w[0].0 != w[1].0), "{version}");
        }
    }

    /// The number of actions in the official schemas: 39 of 1.6 with the security extension, 64 of 2.0.1, 91 of 2.1.
    #[test]
    fn every_action_is_named() {
        for (version, expected) in [(Version::V16, 39), (Version::V201, 64), (Version::V21, 91)] {
            let mut names: Vec<_> = sorted(ups(version)).into_iter().map(|(n, _)| n).collect();
            names.extend(sorted(downs(version)).into_iter().map(|(n, _)| n));
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), expected, "{version}: {names:?}");
        }
    }
}
