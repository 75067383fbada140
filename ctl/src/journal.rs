//! `ladewartctl journal`.

mod offline;
mod report;

use std::{fs::File, io::BufReader, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
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
    /// One event of power reduction by its limit's name, from the command to its end: a table, a spreadsheet or a
    /// page to print.
    Event {
        /// The limit, as in `limit list`.
        limit: String,
        /// How it is written; `--output json` also works.
        #[arg(long = "as", value_enum, value_name = "FORM")]
        form: Option<Form>,
    },
    /// Recomputes the chain and checks the signatures; exit code 1 names the first entry that does not fit.
    Verify {
        /// What `journal export -o json` wrote, instead of the daemon's own.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// SHA-256 of the public key that must have signed, and no other; as an earlier verification showed it.
        #[arg(long, value_name = "SHA-256")]
        key: Option<String>,
    },
}

/// For other programs than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A spreadsheet.
    Csv,
    /// A page to print.
    Html,
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
    /// Only about this: a limit, an EVSE.
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    /// A spreadsheet or a page to print.
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: Option<Form>,
}

impl Journal {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Export(Export { from, to, kind, subject, form }) => {
                let request =
                    v1::ExportJournalRequest { from_sequence: from, to_sequence: to, kind, subject };
                export(session, request, form, "Journal").await
            }
            Self::Event { limit, form } => {
                let title = format!("Power limit {limit}");
                let request = v1::ExportJournalRequest { subject: limit, ..Default::default() };
                export(session, request, form, &title).await
            }
            Self::Verify { file: Some(file), key } => {
                let wrong =
                    |error: &dyn std::fmt::Display| Failure::Wrong(format!("{}: {error}", file.display()));
                let opened = File::open(&file).map_err(|error| wrong(&error))?;
                let verdict = offline::verify(BufReader::new(opened));
                let verdict = verdict.map_err(|p| wrong(&format!("NOT intact: {}", words::clean(&p))))?;
                signed_by(&verdict.keys, key.as_deref())?;
                session.output.line(&offline_sentence(&verdict)).await
            }
            Self::Verify { file: None, key } => {
                let mut client = JournalServiceClient::new(session.channel().await?);
                // No patience here: a long chain takes its time.
                let answer = client.verify_journal(v1::VerifyJournalRequest {}).await?.into_inner();
                let whole = verdict(&answer);
                if session.json_or(false) {
                    session.show("VerifyJournalResponse", &answer, |_| String::new()).await?;
                } else if let Ok(sentence) = &whole {
                    session.output.line(sentence).await?;
                }
                whole.map(drop).map_err(Failure::Wrong)?;
                signed_by(&answer.keys, key.as_deref())
            }
        }
    }
}

async fn export(
    session: &mut Session,
    request: v1::ExportJournalRequest,
    form: Option<Form>,
    title: &str,
) -> Result<(), Failure> {
    let mut client = JournalServiceClient::new(session.channel().await?);
    let mut entries = session.call(client.export_journal(request)).await?;
    let json = form.is_none() && session.json_or(!session.output.terminal());
    let style = session.style();
    let mut begun = json;
    let mut count = 0;
    while let Some(answer) = entries.message().await? {
        let Some(entry) = answer.entry else { continue };
        count += 1;
        if !std::mem::replace(&mut begun, true) {
            let head = match form {
                Some(Form::Csv) => report::csv_heading(),
                Some(Form::Html) => report::html_heading(title),
                None => heading(),
            };
            session.output.line(&head).await?;
        }
        let text = match form {
            Some(Form::Csv) => report::csv(&entry),
            Some(Form::Html) => report::html(&style, &entry),
            None if json => json::line("JournalEntry", &entry)?,
            None => row(&style, &entry),
        };
        session.output.line(&text).await?;
    }
    if form == Some(Form::Html) && begun {
        session.output.line(&report::html_end(count)).await?;
    }
    Ok(())
}

/// Whether nobody but the expected key signed, and that it did.
fn signed_by(keys: &[String], expected: Option<&str>) -> Result<(), Failure> {
    let Some(expected) = expected else { return Ok(()) };
    let expected = expected.replace(':', "").to_lowercase();
    match keys {
        [] => Err(Failure::Wrong("there is no signature in it".to_owned())),
        keys => match keys.iter().find(|key| **key != expected) {
            Some(other) => Err(Failure::Wrong(format!("another key signed: {}", words::clean(other)))),
            None => Ok(()),
        },
    }
}

fn signed_words(through: u64, keys: &[String]) -> String {
    if through == 0 {
        return "; no signature yet".to_owned();
    }
    format!("; signed through entry {through} by key {}", words::clean(&keys.join(", ")))
}

fn offline_sentence(verdict: &offline::Verdict) -> String {
    let offline::Verdict { entries, from, to, head, signed, keys } = verdict;
    if *entries == 0 {
        return "There is no entry in it.".to_owned();
    }
    let signed = signed_words(*signed, keys);
    format!("The export is intact: {entries} entries, {from} to {to}, head {head}{signed}.")
}

/// Good news, or bad.
fn verdict(answer: &v1::VerifyJournalResponse) -> Result<String, String> {
    let (entries, head) = (answer.entries, words::text(&answer.head));
    match (answer.intact, entries) {
        (true, 0) => Ok("The journal is intact; it has no entries yet.".to_owned()),
        (true, _) => {
            let many = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
            let from = match answer.from_sequence {
                0 | 1 => String::new(),
                from => format!(" from entry {from} on (those before were taken off after two years)"),
            };
            let signed = signed_words(answer.signed_sequence, &answer.keys);
            Ok(format!("The journal is intact: {many}{from}, head {head}{signed}."))
        }
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
            previous: "00".repeat(32),
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
        assert_eq!(verdict(&intact).unwrap(), "The journal is intact: 2 entries, head ab; no signature yet.");
        let old = v1::VerifyJournalResponse {
            from_sequence: 9,
            signed_sequence: 10,
            keys: vec!["cd".into()],
            ..intact
        };
        assert_eq!(
            verdict(&old).unwrap(),
            "The journal is intact: 2 entries from entry 9 on (those before were taken off after two years), head ab; \
             signed through entry 10 by key cd."
        );
        assert!(signed_by(&old.keys, Some("CD")).is_ok() && signed_by(&old.keys, Some("ab")).is_err());
        assert!(signed_by(&[], Some("ab")).is_err() && signed_by(&[], None).is_ok());
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
