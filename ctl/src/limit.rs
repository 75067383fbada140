//! `ladewartctl limit`.

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use ladewart_proto::v1::{self, Change, LimitStage, grid_service_client::GridServiceClient};

use crate::{
    clock,
    failure::Failure,
    json,
    quantity::{self, When},
    session::Session,
    source,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Limit {
    /// Sets or replaces a limit; ends once it is in force and recorded.
    Set(Set),
    /// Ends a limit.
    Clear {
        /// Its name, as in `limit list`.
        id: String,
    },
    /// The limits that are not over yet.
    List {
        /// Also those that ended since the daemon started.
        #[arg(long)]
        all: bool,
    },
    /// Each change of a limit's life as it happens, after the present limits.
    Watch,
    /// What the controllable devices are owed while they are limited, and what it is made of.
    Pmin,
    /// Who must be heard from, and where each stands.
    Sources,
    /// A sign of life by the caller; with `--every` until it is stopped.
    Heartbeat {
        /// Again after this time: 30s.
        #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
        every: Option<SignedDuration>,
    },
    /// Chooses what shall hold while the caller is gone.
    Failsafe {
        /// What the controllable devices may draw together: "4200 W", "10 kW".
        #[arg(value_parser = quantity::watts, allow_hyphen_values = true)]
        watts: i64,
        /// At least so long: 2h to 24h.
        #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration, default_value = "2h")]
        lasting: SignedDuration,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// What the controllable devices may draw together: 10000, "4200 W", "10 kW". 0 is a limit.
    #[arg(value_parser = quantity::watts, allow_hyphen_values = true, required_unless_present = "percent")]
    watts: Option<i64>,
    /// Instead of a power: a part of the node's contract power, 0 to 100.
    #[arg(long, conflicts_with = "watts", value_parser = clap::value_parser!(u32).range(..=100))]
    percent: Option<u32>,
    /// Names the limit, to replace or clear it later; the daemon chooses a name without.
    #[arg(long)]
    id: Option<String>,
    /// The node whose devices are limited; the grid connection without.
    #[arg(long)]
    node: Option<String>,
    /// Begins then, not now: 18:00, "2026-11-23 18:00", 2026-11-23T18:00:00+01:00.
    #[arg(long, value_name = "TIME", value_parser = quantity::when)]
    from: Option<When>,
    /// Ends then; without an end it holds until cleared.
    #[arg(long, value_name = "TIME", value_parser = quantity::when)]
    until: Option<When>,
    /// Ends so long after its beginning: 30min, "1h 30min".
    #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration, conflicts_with = "until")]
    lasting: Option<SignedDuration>,
    /// What follows, each from its time on, in their order: "18:00=8 kW". Again for each step.
    #[arg(long = "then", value_name = "TIME=POWER", value_parser = step)]
    then: Vec<(When, i64)>,
    /// For the journal.
    #[arg(long)]
    reason: Option<String>,
}

/// `"18:00=8 kW"`.
fn step(text: &str) -> Result<(When, i64), String> {
    let Some((when, power)) = text.rsplit_once('=') else {
        return Err(format!("{text:?} is not a step; write it like \"18:00=8 kW\""));
    };
    Ok((quantity::when(when)?, quantity::watts(power)?))
}

impl Limit {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let request = set.request(clock::now(), &TimeZone::system())?;
                let mut client = GridServiceClient::new(session.channel().await?);
                let answer = session.call(client.set_limit(request)).await?;
                session.show("SetLimitResponse", &answer, |style| set_sentence(style, &answer)).await
            }
            Self::Clear { id } => {
                let mut client = GridServiceClient::new(session.channel().await?);
                let request = v1::ClearLimitRequest { id: id.clone() };
                let answer = session.call(client.clear_limit(request)).await?;
                session.show("ClearLimitResponse", &answer, |_| clear_sentence(&id, answer.change())).await
            }
            Self::List { all } => {
                let mut client = GridServiceClient::new(session.channel().await?);
                let request = v1::ListLimitsRequest { include_ended: all };
                let answer = session.call(client.list_limits(request)).await?;
                session.show("ListLimitsResponse", &answer, |style| list(style, &answer.limits)).await
            }
            Self::Watch => watch(session).await,
            Self::Pmin => {
                let mut client = GridServiceClient::new(session.channel().await?);
                let answer = session.call(client.get_minimum_power(v1::GetMinimumPowerRequest {})).await?;
                session
                    .show("GetMinimumPowerResponse", &answer, |style| source::minimum(style, &answer))
                    .await
            }
            Self::Sources => {
                let mut client = GridServiceClient::new(session.channel().await?);
                let answer = session.call(client.list_sources(v1::ListSourcesRequest {})).await?;
                session
                    .show("ListSourcesResponse", &answer, |style| source::list(style, &answer.sources))
                    .await
            }
            Self::Heartbeat { every } => source::heartbeat(session, every).await,
            Self::Failsafe { watts, lasting } => {
                let mut client = GridServiceClient::new(session.channel().await?);
                let duration_seconds = u32::try_from(lasting.as_secs()).unwrap_or_default();
                let request = v1::SetFailsafeRequest { watts, duration_seconds };
                let answer = session.call(client.set_failsafe(request)).await?;
                let sentence = |_: &Style| match answer.change() {
                    Change::None => "It was chosen already; nothing changed.".to_owned(),
                    _ => format!("While you are gone, {} holds.", words::watts(watts)),
                };
                session.show("SetFailsafeResponse", &answer, sentence).await
            }
        }
    }
}

impl Set {
    fn request(self, now: Timestamp, zone: &TimeZone) -> Result<v1::SetLimitRequest, Failure> {
        let resolve = |name: &str, when: Option<When>| {
            let resolved = when.map(|when| when.resolve(now, zone)).transpose();
            resolved.map_err(|problem| Failure::Usage(format!("--{name}: {problem}")))
        };
        let from = resolve("from", self.from)?;
        let until = match self.lasting {
            Some(lasting) => Some(
                from.unwrap_or(now)
                    .checked_add(lasting)
                    .map_err(|_| Failure::Usage("--for: this lasts longer than the calendar".to_owned()))?,
            ),
            None => resolve("until", self.until)?,
        };
        let mut steps = Vec::with_capacity(self.then.len());
        let mut before = from.unwrap_or(now);
        for (when, watts) in self.then {
            // A time of day is the next one after the step before.
            let at =
                when.resolve(before, zone).map_err(|problem| Failure::Usage(format!("--then: {problem}")))?;
            steps.push(v1::LimitStep { from: Some(quantity::timestamp(at)), watts });
            before = at;
        }
        Ok(v1::SetLimitRequest {
            id: self.id.unwrap_or_default(),
            node: self.node.unwrap_or_default(),
            watts: self.watts.unwrap_or_default(),
            percent: self.percent,
            steps,
            valid_from: from.map(quantity::timestamp),
            valid_until: until.map(quantity::timestamp),
            reason: self.reason.unwrap_or_default(),
        })
    }
}

async fn watch(session: &mut Session) -> Result<(), Failure> {
    let mut client = GridServiceClient::new(session.channel().await?);
    let mut changes = session.call(client.watch_limits(v1::WatchLimitsRequest {})).await?;
    while let Some(change) = changes.message().await? {
        let Some(limit) = change.limit else { continue };
        let text = if session.json_or(false) {
            json::line("Limit", &limit)?
        } else {
            news(&session.style(), &limit)
        };
        session.output.line(&text).await?;
    }
    Ok(())
}

/// The stage in a word.
pub(crate) const fn stage(stage: LimitStage) -> &'static str {
    match stage {
        LimitStage::Unspecified => "unknown",
        LimitStage::Received => "received",
        LimitStage::Accepted => "accepted",
        LimitStage::Applied => "applied",
        LimitStage::Effective => "effective",
        LimitStage::Expired => "expired",
        LimitStage::Cleared => "cleared",
        LimitStage::Superseded => "superseded",
    }
}

/// When its present stage was reached.
fn reached(limit: &v1::Limit) -> Option<&prost_types::Timestamp> {
    match limit.stage() {
        LimitStage::Unspecified => None,
        LimitStage::Received => limit.received_at.as_ref(),
        LimitStage::Accepted => limit.accepted_at.as_ref(),
        LimitStage::Applied => limit.applied_at.as_ref(),
        LimitStage::Effective => limit.effective_at.as_ref(),
        LimitStage::Expired | LimitStage::Cleared | LimitStage::Superseded => limit.ended_at.as_ref(),
    }
}

fn until(style: &Style, limit: &v1::Limit) -> String {
    match &limit.valid_until {
        Some(until) => style.time(Some(until)),
        None => "cleared".to_owned(),
    }
}

fn named(limit: &v1::Limit) -> String {
    format!("Limit \"{}\"", words::clean(&limit.id))
}

fn set_sentence(style: &Style, answer: &v1::SetLimitResponse) -> String {
    let Some(limit) = &answer.limit else {
        return "The limit is set.".to_owned();
    };
    let what = format!("{} at {}", words::watts(limit.watts), words::text(&limit.node));
    let holds = match style.until(limit.valid_from.as_ref()) {
        Some(ahead) if ahead != "0.0 s" => format!("holds from {}", style.time(limit.valid_from.as_ref())),
        _ => "is in force".to_owned(),
    };
    let until = until(style, limit);
    let change = match answer.change() {
        Change::None => " It was there already; nothing changed.",
        Change::Replaced => " It replaces the earlier one.",
        Change::Unspecified | Change::Created | Change::Removed => "",
    };
    format!("{} {holds}: {what}, until {until}.{change}", named(limit))
}

fn clear_sentence(id: &str, change: Change) -> String {
    let id = words::clean(id);
    match change {
        Change::None => format!("There is no limit \"{id}\"; nothing changed."),
        _ => format!("Limit \"{id}\" has ended."),
    }
}

/// One change, on one line.
fn news(style: &Style, limit: &v1::Limit) -> String {
    let measured = match limit.measured_watts {
        Some(watts) if limit.stage() == LimitStage::Effective => {
            format!(", measured {}", words::watts(watts))
        }
        _ => String::new(),
    };
    format!(
        "{} {} is {}: {} at {}, by {}{measured}",
        style.short(reached(limit)),
        named(limit),
        stage(limit.stage()),
        words::watts(limit.watts),
        words::text(&limit.node),
        words::text(&limit.issuer),
    )
}

/// The limits, one per line.
pub(crate) fn list(style: &Style, limits: &[v1::Limit]) -> String {
    if limits.is_empty() {
        return "No limit is set.\n".to_owned();
    }
    let row = |limit: &v1::Limit| {
        vec![
            words::text(&limit.id),
            words::text(&limit.node),
            words::watts(limit.watts),
            stage(limit.stage()).to_owned(),
            style.time(reached(limit)),
            limit.measured_watts.map_or_else(|| NOTHING.to_owned(), words::watts),
            style.time(limit.valid_from.as_ref()),
            until(style, limit),
            words::text(&format!("{} ({})", limit.issuer, limit.role)),
            words::text(&limit.reason),
        ]
    };
    let headings =
        ["LIMIT", "NODE", "POWER", "STAGE", "REACHED", "MEASURED", "FROM", "UNTIL", "BY", "REASON"];
    table(style, &headings, limits.iter().map(row).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn samples() -> Vec<v1::Limit> {
        vec![
            v1::Limit {
                id: "dso-1".into(),
                issuer: "uid:1001".into(),
                role: "grid".into(),
                node: "grid".into(),
                watts: 10_000,
                valid_from: Style::ago(300),
                valid_until: Style::ago(-3300),
                reason: "§14a, feeder 7".into(),
                stage: LimitStage::Effective.into(),
                received_at: Style::ago(300),
                accepted_at: Style::ago(300),
                applied_at: Style::ago(299),
                effective_at: Style::ago(295),
                ended_at: None,
                measured_watts: Some(9_812),
                owed_watts: 7_560,
                ..Default::default()
            },
            v1::Limit {
                id: "w4".into(),
                issuer: "contact:w4".into(),
                role: "grid".into(),
                node: "garage".into(),
                watts: 0,
                valid_from: Style::ago(2),
                stage: LimitStage::Accepted.into(),
                received_at: Style::ago(2),
                accepted_at: Style::ago(2),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn the_list_shows_each_limit_on_one_line() {
        insta::assert_snapshot!(list(&Style::fixed(), &samples()));
    }

    #[test]
    fn changes_and_answers_are_sentences() {
        let style = Style::fixed();
        let [first, second] = &samples()[..] else { panic!("two") };
        let answer = |limit: &v1::Limit, change: Change| {
            set_sentence(&style, &v1::SetLimitResponse { limit: Some(limit.clone()), change: change.into() })
        };
        let later = v1::Limit { valid_from: Style::ago(-60), ..first.clone() };
        let sentences = [
            news(&style, first),
            news(&style, second),
            answer(first, Change::Created),
            answer(second, Change::Replaced),
            answer(second, Change::None),
            answer(&later, Change::Created),
            clear_sentence("dso-1", Change::Removed),
            clear_sentence("dso\u{1b}", Change::None),
        ];
        insta::assert_snapshot!(sentences.join("\n"));
    }

    fn set(args: &[&str]) -> Result<v1::SetLimitRequest, String> {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            set: Set,
        }
        let line = Line::try_parse_from([&["set"], args].concat()).map_err(|e| e.to_string())?;
        let style = Style::fixed();
        line.set.request(style.now, &style.zone).map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_becomes_a_request() {
        let request = set(&["10 kW", "--id", "x", "--for", "30min", "--reason", "test"]).unwrap();
        assert_eq!((request.watts, request.valid_from), (10_000, None));
        assert_eq!(request.valid_until, Style::ago(-1800));
        let request = set(&["0", "--from", "18:00", "--for", "1h"]).unwrap();
        assert_eq!(request.valid_from, Style::ago(-6 * 3600));
        assert_eq!(request.valid_until, Style::ago(-7 * 3600));
        let request = set(&["4200", "--until", "2026-11-23 12:30", "--node", "garage"]).unwrap();
        assert_eq!((request.valid_until, request.node.as_str()), (Style::ago(-1800), "garage"));
    }

    #[test]
    fn a_wrong_command_line_says_what_would_be_right() {
        for (args, says) in [
            (&["-5"][..], "is negative"),
            (&["10 PS"], "10 kW"),
            (&["1", "--for", "soon"], "30min"),
            (&["1", "--until", "later"], "18:00"),
            (&["1", "--until", "18:00", "--for", "1h"], "cannot be used with"),
            (&["1", "--for", "100000000h"], "longer than the calendar"),
            (&[], "required"),
            (&["1", "--percent", "30"], "cannot be used with"),
            (&["--percent", "130"], "130"),
        ] {
            let error = set(args).unwrap_err();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }
}
