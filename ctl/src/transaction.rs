//! `ladewartctl transaction`.

use clap::{Args, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use ladewart_proto::v1::{self, TransactionDelivery, transaction_service_client::TransactionServiceClient};

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
pub(crate) enum Transaction {
    /// Transactions, the newest first.
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        most: u32,
    },
    /// All transactions, the oldest first: one line each, for programs.
    Export {
        #[command(flatten)]
        which: Which,
        /// How they are written.
        #[arg(long, value_enum, default_value_t = Form::Csv)]
        format: Form,
    },
    /// Messages that the backend refused for good.
    Dead {
        /// Only of this charging point.
        #[arg(long, value_name = "EVSE")]
        evse: Option<String>,
    },
    /// Sends refused messages to the backend again, behind everything else that waits.
    Retry {
        /// The charging point.
        evse: String,
        /// Only this one, by its number in `transaction dead`.
        #[arg(long, value_name = "NUMBER")]
        number: Option<i64>,
    },
    /// Drops refused messages for good.
    Discard {
        /// The charging point.
        evse: String,
        /// This one, by its number in `transaction dead`.
        #[arg(long, value_name = "NUMBER", required_unless_present = "all")]
        number: Option<i64>,
        /// All of the charging point.
        #[arg(long, conflicts_with = "number")]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Comma-separated (RFC 4180), with a heading; times in UTC, energies in Wh.
    Csv,
    /// JSON, one document per line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only of this charging point.
    #[arg(long, value_name = "EVSE")]
    evse: Option<String>,
    /// Begun then or later: 18:00, "2026-11-23 18:00".
    #[arg(long, value_name = "TIME", value_parser = quantity::when)]
    from: Option<When>,
    /// Begun earlier than that.
    #[arg(long, value_name = "TIME", value_parser = quantity::when)]
    to: Option<When>,
    /// Only those that run.
    #[arg(long)]
    running: bool,
}

impl Which {
    fn filter(self) -> Result<v1::TransactionFilter, Failure> {
        let resolve = |name: &str, when: Option<When>| {
            let resolved = when.map(|when| when.resolve(clock::now(), &TimeZone::system())).transpose();
            let resolved = resolved.map_err(|problem| Failure::Usage(format!("--{name}: {problem}")))?;
            Ok::<_, Failure>(
                resolved
                    .map(|t| prost_types::Timestamp { seconds: t.as_second(), nanos: t.subsec_nanosecond() }),
            )
        };
        Ok(v1::TransactionFilter {
            evse_id: self.evse.unwrap_or_default(),
            from: resolve("from", self.from)?,
            to: resolve("to", self.to)?,
            running: self.running,
        })
    }
}

impl Transaction {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = TransactionServiceClient::new(session.channel().await?);
        match self {
            Self::List { which, most } => {
                let request = v1::ListTransactionsRequest {
                    filter: Some(which.filter()?),
                    page_size: most.max(1),
                    page: 0,
                };
                let answer = session.call(client.list_transactions(request)).await?;
                session
                    .show("ListTransactionsResponse", &answer, |style| list(style, &answer.transactions))
                    .await
            }
            Self::Export { which, format } => {
                let request = v1::ExportTransactionsRequest { filter: Some(which.filter()?) };
                let mut all = session.call(client.export_transactions(request)).await?;
                let csv = format == Form::Csv && !session.json_or(false);
                if csv {
                    session.output.write(csv_line(&HEADING.map(str::to_owned)).as_bytes()).await?;
                }
                while let Some(answer) = all.message().await? {
                    let Some(transaction) = answer.transaction else { continue };
                    let text = if csv {
                        csv_line(&record(&transaction))
                    } else {
                        json::line("TransactionRecord", &transaction)? + "\n"
                    };
                    session.output.write(text.as_bytes()).await?;
                }
                Ok(())
            }
            Self::Dead { evse } => {
                let request = v1::ListDeadLettersRequest { evse_id: evse.unwrap_or_default() };
                let answer = session.call(client.list_dead_letters(request)).await?;
                session.show("ListDeadLettersResponse", &answer, |style| dead(style, &answer.letters)).await
            }
            Self::Retry { evse, number } => {
                let request =
                    v1::RetryDeadLettersRequest { evse_id: evse, sequence: number.unwrap_or_default() };
                let answer = session.call(client.retry_dead_letters(request)).await?;
                let sentence =
                    counted(answer.count, "waits for the backend again", "wait for the backend again");
                session.show("RetryDeadLettersResponse", &answer, |_| sentence).await
            }
            Self::Discard { evse, number, .. } => {
                let request =
                    v1::DiscardDeadLettersRequest { evse_id: evse, sequence: number.unwrap_or_default() };
                let answer = session.call(client.discard_dead_letters(request)).await?;
                let sentence = counted(answer.count, "is gone", "are gone");
                session.show("DiscardDeadLettersResponse", &answer, |_| sentence).await
            }
        }
    }
}

fn counted(count: u32, one: &str, many: &str) -> String {
    match count {
        0 => "There is no such message.".to_owned(),
        1 => format!("1 message {one}."),
        n => format!("{n} messages {many}."),
    }
}

fn delivery(transaction: &v1::TransactionRecord) -> &'static str {
    match transaction.delivery() {
        TransactionDelivery::Unspecified => NOTHING,
        TransactionDelivery::Local => "no backend",
        TransactionDelivery::Waiting => "waits",
        TransactionDelivery::Delivered => "delivered",
        TransactionDelivery::Refused => "refused",
    }
}

fn list(style: &Style, transactions: &[v1::TransactionRecord]) -> String {
    if transactions.is_empty() {
        return "There are no transactions.\n".to_owned();
    }
    let row = |t: &v1::TransactionRecord| {
        let evse = if t.evse_id.is_empty() { &t.identity } else { &t.evse_id };
        vec![
            t.number.to_string(),
            words::text(evse),
            words::text(&t.id_tag),
            style.time(t.started.as_ref()),
            if t.stopped.is_some() { style.time(t.stopped.as_ref()) } else { "runs".to_owned() },
            t.energy_watthours.map_or_else(|| NOTHING.to_owned(), words::watthours),
            words::text(&t.reason),
            words::text(&t.backend_id),
            delivery(t).to_owned(),
        ]
    };
    let headings = ["NO", "EVSE", "CARD", "STARTED", "STOPPED", "ENERGY", "REASON", "BACKEND ID", "BACKEND"];
    table(style, &headings, transactions.iter().map(row).collect())
}

fn dead(style: &Style, letters: &[v1::DeadLetter]) -> String {
    if letters.is_empty() {
        return "The backend has refused nothing for good.\n".to_owned();
    }
    let row = |l: &v1::DeadLetter| {
        let evse = if l.evse_id.is_empty() { &l.identity } else { &l.evse_id };
        vec![
            words::text(evse),
            l.sequence.to_string(),
            style.time(l.given_up.as_ref()),
            l.attempts.to_string(),
            words::text(&l.reason),
            words::text(&l.frame),
        ]
    };
    table(
        style,
        &["EVSE", "NUMBER", "GIVEN UP", "SENT", "ANSWER", "MESSAGE"],
        letters.iter().map(row).collect(),
    )
}

const HEADING: [&str; 13] = [
    "number",
    "evse",
    "identity",
    "id",
    "backend_id",
    "connector",
    "id_tag",
    "started",
    "stopped",
    "meter_start_wh",
    "meter_stop_wh",
    "energy_wh",
    "reason",
];

fn record(t: &v1::TransactionRecord) -> [String; 13] {
    let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
    let time = |time: Option<&prost_types::Timestamp>| {
        time.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
            .map(|t| t.to_string())
            .unwrap_or_default()
    };
    [
        t.number.to_string(),
        t.evse_id.clone(),
        t.identity.clone(),
        t.id.clone(),
        t.backend_id.clone(),
        t.connector.to_string(),
        t.id_tag.clone(),
        time(t.started.as_ref()),
        time(t.stopped.as_ref()),
        number(t.meter_start_watthours),
        number(t.meter_stop_watthours),
        number(t.energy_watthours),
        t.reason.clone(),
    ]
}

/// RFC 4180. A text that a spreadsheet would take for a formula is led by an apostrophe.
fn csv_line<const N: usize>(fields: &[String; N]) -> String {
    let quoted = fields.iter().map(|field| {
        let clean = words::clean(field);
        let formula =
            clean.starts_with(['=', '+', '@']) || clean.starts_with('-') && clean.parse::<i64>().is_err();
        let clean = if formula { format!("'{clean}") } else { clean };
        if clean.contains([',', '"']) { format!("\"{}\"", clean.replace('"', "\"\"")) } else { clean }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<v1::TransactionRecord> {
        vec![
            v1::TransactionRecord {
                number: 12,
                evse_id: "left".into(),
                identity: "DE*LAD*1".into(),
                id: "1610612745".into(),
                connector: 1,
                id_tag: "=1+1,\"A\"\u{1b}".into(),
                started: Style::ago(1800),
                meter_start_watthours: Some(120_400),
                delivery: TransactionDelivery::Waiting.into(),
                ..Default::default()
            },
            v1::TransactionRecord {
                number: 11,
                identity: "OLD".into(),
                id: "1610612744".into(),
                backend_id: "41".into(),
                connector: 1,
                id_tag: "04A2".into(),
                started: Style::ago(7200),
                stopped: Style::ago(3600),
                meter_start_watthours: Some(100_000),
                meter_stop_watthours: Some(111_350),
                energy_watthours: Some(11_350),
                reason: "EVDisconnected".into(),
                delivery: TransactionDelivery::Delivered.into(),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn the_list_shows_each_transaction_on_one_line() {
        insta::assert_snapshot!(list(&Style::fixed(), &samples()));
    }

    #[test]
    fn an_export_is_safe_to_open() {
        let lines: String = samples().iter().map(|t| csv_line(&record(t))).collect();
        insta::assert_snapshot!(csv_line(&HEADING.map(str::to_owned)) + &lines);
    }

    #[test]
    fn refused_messages_are_shown_whole() {
        let letter = v1::DeadLetter {
            evse_id: "left".into(),
            sequence: 7,
            frame: "[2,\"a\",\"StopTransaction\",{}]".into(),
            reason: "InternalError".into(),
            attempts: 3,
            given_up: Style::ago(60),
            ..Default::default()
        };
        let shown = [dead(&Style::fixed(), &[letter]), dead(&Style::fixed(), &[])].concat();
        insta::assert_snapshot!(shown + &counted(0, "", "") + &counted(2, "", "are gone"));
    }
}
