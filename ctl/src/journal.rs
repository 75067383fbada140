//! `ladewartctl journal`.

use clap::{Args, Subcommand};
use ladewart_proto::v1::{self, journal_service_client::JournalServiceClient};

use crate::{
    failure::Failure,
    json,
    session::Session,
    words::{self, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// The entries in order: JSON, one per line, into a pipe or a file; a table on a terminal.
    Export(Export),
    /// Recomputes the chain; exit code 1 names the first entry that does not fit.
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// First entry.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// Last entry.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    to: u64,
    /// Only this kind, e.g. limit.accepted; with a dot at the end (limit.) all that begin so.
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
}

impl Journal {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = JournalServiceClient::new(session.channel().await?);
        match self {
            Self::Export(Export { from, to, kind }) => {
                let request = v1::ExportJournalRequest { from_sequence: from, to_sequence: to, kind };
                let mut entries = session.call(client.export_journal(request)).await?;
                let json = session.json_or(!session.output.terminal());
                let style = session.style();
                let mut first = !json;
                while let Some(answer) = entries.message().await? {
                    let Some(entry) = answer.entry else { continue };
                    if std::mem::take(&mut first) {
                        session.output.line(&heading()).await?;
                    }
                    let text = if json { json::line("JournalEntry", &entry)? } else { row(&style, &entry) };
                    session.output.line(&text).await?;
                }
                Ok(())
            }
            Self::Verify => {
                // No patience here: a long chain takes its time.
                let answer = client.verify_journal(v1::VerifyJournalRequest {}).await?.into_inner();
                let whole = verdict(&answer);
                if session.json_or(false) {
                    session.show("VerifyJournalResponse", &answer, |_| String::new()).await?;
                } else if let Ok(sentence) = &whole {
                    session.output.line(sentence).await?;
                }
                whole.map(drop).map_err(Failure::Wrong)
            }
        }
    }
}

/// Good news, or bad.
fn verdict(answer: &v1::VerifyJournalResponse) -> Result<String, String> {
    let (entries, head) = (answer.entries, words::text(&answer.head));
    match (answer.intact, entries) {
        (true, 0) => Ok("The journal is intact; it has no entries yet.".to_owned()),
        (true, 1) => Ok(format!("The journal is intact: 1 entry, head {head}.")),
        (true, _) => Ok(format!("The journal is intact: {entries} entries, head {head}.")),
        (false, _) => Err(format!(
            "the journal is NOT intact from entry {} on: {} ({entries} before it fit)",
            answer.broken_at,
            words::text(&answer.problem)
        )),
    }
}

fn columns(number: &str, time: &str, kind: &str, subject: &str, actor: &str, body: &str) -> String {
    format!("{number:>8}  {time:<24}  {kind:<20}  {subject:<16}  {actor:<14}  {body}").trim_end().to_owned()
}

fn heading() -> String {
    columns("ENTRY", "TIME", "KIND", "SUBJECT", "BY", "PARTICULARS")
}

/// Columns of a fixed width, because the entries come one by one.
fn row(style: &Style, entry: &v1::JournalEntry) -> String {
    columns(
        &entry.sequence.to_string(),
        &style.time(entry.at.as_ref()),
        &words::text(&entry.kind),
        &words::text(&entry.subject),
        &words::text(&entry.actor),
        &words::text(&entry.body),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_columns() {
        let entry = |sequence, kind: &str, subject: &str| v1::JournalEntry {
            sequence,
            at: Style::ago(60),
            kind: kind.into(),
            subject: subject.into(),
            actor: "uid:0".into(),
            body: "{\"watts\":10000,\"why\":\"\u{1b}[2J\"}".into(),
            hash: "00".repeat(32),
        };
        let style = Style::fixed();
        let lines = [
            heading(),
            row(&style, &entry(1, "limit.accepted", "dso-1")),
            row(&style, &entry(123_456_789, "daemon.started", "")),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_broken_chain_is_a_failure_that_names_the_entry() {
        let intact =
            v1::VerifyJournalResponse { intact: true, entries: 2, head: "ab".into(), ..Default::default() };
        assert_eq!(verdict(&intact).unwrap(), "The journal is intact: 2 entries, head ab.");
        let broken = v1::VerifyJournalResponse {
            intact: false,
            entries: 4,
            broken_at: 5,
            problem: "entry 5 was changed".into(),
            ..Default::default()
        };
        let says = verdict(&broken).unwrap_err();
        assert_eq!(says, "the journal is NOT intact from entry 5 on: entry 5 was changed (4 before it fit)");
    }
}
