//! `ladewartctl tariff`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use ladewart_proto::v1::{self, Change, TariffLevel, tariff_service_client::TariffServiceClient};

use crate::{
    clock,
    failure::Failure,
    json,
    quantity::{self, When},
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Tariff {
    /// Says what energy costs when: one stretch of time, or a whole announcement from a file.
    Announce(Box<Announce>),
    /// Takes an announcement of yours back.
    Withdraw {
        /// Its name, as in `tariff list`.
        id: String,
    },
    /// The announcements that are not over yet.
    List,
    /// What holds for an EVSE over the next hours, and who says so.
    Rates {
        /// The EVSE; the first of the site without.
        #[arg(long, default_value = "", hide_default_value = true)]
        evse: String,
        /// Begins then, not now: 18:00, "2026-11-23 18:00", 2026-11-23T18:00:00+01:00.
        #[arg(long, value_name = "TIME", value_parser = quantity::when)]
        from: Option<When>,
        /// How long: 24h without.
        #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration)]
        lasting: Option<SignedDuration>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Announce {
    /// A TariffAnnouncement as JSON, with the names of the interface; instead of everything else.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["id", "price", "level", "from", "until", "lasting"])]
    file: Option<PathBuf>,
    /// Names the announcement, to replace or withdraw it later.
    #[arg(long, required_unless_present = "file")]
    id: Option<String>,
    /// Version: each one above the one before.
    #[arg(long, default_value_t = 1)]
    sequence: u64,
    /// "12.5 ct/kWh" or "0.125 EUR/kWh".
    #[arg(long, value_parser = price, allow_hyphen_values = true)]
    price: Option<i64>,
    /// low (NT), normal (ST) or high (HT).
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Begins then, not now.
    #[arg(long, value_name = "TIME", value_parser = quantity::when)]
    from: Option<When>,
    /// Ends then.
    #[arg(long, value_name = "TIME", value_parser = quantity::when, required_unless_present_any = ["file", "lasting"])]
    until: Option<When>,
    /// Ends so long after its beginning.
    #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration, conflicts_with = "until")]
    lasting: Option<SignedDuration>,
    /// The higher goes first; 10 without.
    #[arg(long)]
    priority: Option<u32>,
    /// Only for these EVSEs.
    #[arg(long)]
    evse: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Low,
    Normal,
    High,
}

/// `"12.5 ct/kWh"` → millionths of a euro, exactly.
fn price(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a price; write it like \"12.5 ct/kWh\" or \"0.125 EUR/kWh\"");
    let trimmed = text.trim();
    let (number, digits) = match (trimmed.strip_suffix("ct/kWh"), trimmed.strip_suffix("EUR/kWh")) {
        (Some(number), _) => (number.trim(), 4),
        (_, Some(number)) => (number.trim(), 6),
        _ => return Err(wrong()),
    };
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let part = part.trim_end_matches('0');
    let digital = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || part.len() > digits || !digital(whole) || !digital(part) {
        return Err(wrong());
    }
    let value: i64 = format!("{whole}{part:0<digits$}").parse().map_err(|_| wrong())?;
    Ok(if negative { -value } else { value })
}

impl Tariff {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Announce(announce) => {
                let announcement = announce.announcement(clock::now(), &TimeZone::system())?;
                let id = announcement.id.clone();
                let request = v1::AnnounceTariffRequest { announcement: Some(announcement) };
                let mut client = TariffServiceClient::new(session.channel().await?);
                let answer = session.call(client.announce_tariff(request)).await?;
                session.show("AnnounceTariffResponse", &answer, |_| sentence(&id, answer.change())).await
            }
            Self::Withdraw { id } => {
                let mut client = TariffServiceClient::new(session.channel().await?);
                let request = v1::WithdrawTariffRequest { id: id.clone() };
                let answer = session.call(client.withdraw_tariff(request)).await?;
                session.show("WithdrawTariffResponse", &answer, |_| sentence(&id, answer.change())).await
            }
            Self::List => {
                let mut client = TariffServiceClient::new(session.channel().await?);
                let answer = session.call(client.list_tariffs(v1::ListTariffsRequest {})).await?;
                session.show("ListTariffsResponse", &answer, |style| list(style, &answer.announcements)).await
            }
            Self::Rates { evse, from, lasting } => {
                let (now, zone) = (clock::now(), TimeZone::system());
                let from = from.map_or(Ok(now), |from| from.resolve(now, &zone)).map_err(Failure::Usage)?;
                let until = from
                    .checked_add(lasting.unwrap_or(SignedDuration::from_hours(24)))
                    .map_err(|_| Failure::Usage("--for: this is beyond the calendar".to_owned()))?;
                let request = v1::ListRatesRequest {
                    evse,
                    from: Some(quantity::timestamp(from)),
                    until: Some(quantity::timestamp(until)),
                };
                let mut client = TariffServiceClient::new(session.channel().await?);
                let answer = session.call(client.list_rates(request)).await?;
                session.show("ListRatesResponse", &answer, |style| rates(style, &answer.rates)).await
            }
        }
    }
}

impl Announce {
    fn announcement(self, now: Timestamp, zone: &TimeZone) -> Result<v1::TariffAnnouncement, Failure> {
        if let Some(path) = &self.file {
            let wrong = |error: String| Failure::Usage(format!("--file: {}: {error}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            return json::read("TariffAnnouncement", &text).map_err(wrong);
        }
        let usage = |name: &str, problem: String| Failure::Usage(format!("--{name}: {problem}"));
        let from = self.from.map_or(Ok(now), |from| from.resolve(now, zone)).map_err(|p| usage("from", p))?;
        let until = match (self.until, self.lasting) {
            (Some(until), _) => until.resolve(now, zone).map_err(|p| usage("until", p))?,
            (None, lasting) => from
                .checked_add(lasting.unwrap_or_default())
                .map_err(|_| usage("for", "this is beyond the calendar".to_owned()))?,
        };
        let level = match self.level {
            None => TariffLevel::Unspecified,
            Some(Level::Low) => TariffLevel::Low,
            Some(Level::Normal) => TariffLevel::Normal,
            Some(Level::High) => TariffLevel::High,
        };
        if self.price.is_none() && self.level.is_none() {
            return Err(usage("price", "is missing; say a price, a level, or both".to_owned()));
        }
        let (from, until) = (Some(quantity::timestamp(from)), Some(quantity::timestamp(until)));
        let offer = Some(v1::TariffOffer { micro_euros_per_kwh: self.price, level: level.into() });
        Ok(v1::TariffAnnouncement {
            id: self.id.unwrap_or_default(),
            sequence: self.sequence,
            valid_from: from,
            valid_until: until,
            priority: self.priority,
            evses: self.evse,
            slots: vec![v1::TariffSlot { from, until, offer }],
            ..Default::default()
        })
    }
}

fn sentence(id: &str, change: Change) -> String {
    let id = words::clean(id);
    match change {
        Change::Created => format!("Tariff {id} is announced."),
        Change::Replaced => format!("Tariff {id} is announced anew."),
        Change::Removed => format!("Tariff {id} is withdrawn."),
        Change::None | Change::Unspecified => format!("Tariff {id} was so already; nothing changed."),
    }
}

fn cents(micro: Option<i64>) -> String {
    let Some(micro) = micro else { return NOTHING.to_owned() };
    let (whole, part) = (micro.unsigned_abs() / 10_000, micro.unsigned_abs() % 10_000);
    let sign = if micro < 0 { "-" } else { "" };
    let part = format!("{part:04}");
    let part = part.trim_end_matches('0');
    let dot = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{dot}{part} ct/kWh")
}

fn level(level: TariffLevel) -> String {
    match level {
        TariffLevel::Unspecified => NOTHING,
        TariffLevel::Low => "low",
        TariffLevel::Normal => "normal",
        TariffLevel::High => "high",
    }
    .to_owned()
}

fn list(style: &Style, all: &[v1::TariffAnnouncement]) -> String {
    let row = |a: &v1::TariffAnnouncement| {
        let says = match (a.slots.len(), a.zones.len()) {
            (0, 0) => "one rate".to_owned(),
            (0, 1) => "1 window".to_owned(),
            (0, zones) => format!("{zones} windows"),
            (1, _) => "1 slot".to_owned(),
            (slots, _) => format!("{slots} slots"),
        };
        let evses = if a.evses.is_empty() { "all".to_owned() } else { words::clean(&a.evses.join(" ")) };
        vec![
            words::text(&a.id),
            words::text(&a.issuer),
            a.sequence.to_string(),
            a.priority.unwrap_or(10).to_string(),
            evses,
            style.time(a.valid_from.as_ref()),
            style.time(a.valid_until.as_ref()),
            says,
        ]
    };
    if all.is_empty() {
        return "No tariff is announced; the schedule of the configuration holds.".to_owned();
    }
    let headings = ["TARIFF", "BY", "VERSION", "PRIORITY", "EVSES", "FROM", "UNTIL", "SAYS"];
    table(style, &headings, all.iter().map(row).collect())
}

fn rates(style: &Style, all: &[v1::Rate]) -> String {
    let row = |rate: &v1::Rate| {
        vec![
            style.time(rate.from.as_ref()),
            style.time(rate.until.as_ref()),
            cents(rate.micro_euros_per_kwh),
            level(rate.level()),
            words::text(&rate.source),
        ]
    };
    table(style, &["FROM", "UNTIL", "PRICE", "LEVEL", "SOURCE"], all.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_exactly() {
        for (text, expected) in [
            ("12.5 ct/kWh", 125_000),
            ("0.125 EUR/kWh", 125_000),
            ("-3ct/kWh", -30_000),
            ("0 ct/kWh", 0),
            ("8.6201 ct/kWh", 86_201),
        ] {
            assert_eq!(price(text), Ok(expected), "{text}");
        }
        for bad in ["12.5", "12,5 ct/kWh", "ct/kWh", "1.00001 ct/kWh", "1e2 ct/kWh", "", ".5 ct/kWh"] {
            assert!(price(bad).is_err(), "{bad}");
        }
        assert_eq!((cents(Some(86_200)), cents(Some(-5))), ("8.62 ct/kWh".into(), "-0.0005 ct/kWh".into()));
    }

    #[test]
    fn announcements_and_rates_stand_in_columns() {
        let announced = v1::TariffAnnouncement {
            id: "day-ahead".into(),
            issuer: "cert:supplier".into(),
            sequence: 7,
            valid_from: Style::ago(60),
            valid_until: Style::ago(-3600),
            slots: vec![v1::TariffSlot::default(); 24],
            ..Default::default()
        };
        let rate = v1::Rate {
            from: Style::ago(0),
            until: Style::ago(-3600),
            micro_euros_per_kwh: Some(34_500),
            level: TariffLevel::Low.into(),
            source: "schedule, 01:00 to 04:00".into(),
        };
        let style = Style::fixed();
        insta::assert_snapshot!([list(&style, &[announced]), rates(&style, &[rate])].join("\n"));
    }
}
