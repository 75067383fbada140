//! Entries as a spreadsheet or as a page to print.

use std::fmt::Write as _;

use ladewart_proto::v1::JournalEntry;

use crate::words::{self, Style};

/// Members of a body that stand first, where they are there.
const FIRST: [&str; 12] = [
    "event",
    "minute",
    "limit_watts",
    "mean_watts",
    "highest_watts",
    "grid_watts",
    "controllable_watts",
    "watts",
    "owed_watts",
    "measured_watts",
    "how",
    "reason",
];

/// RFC 4180; a text that a spreadsheet would take for a formula is shown as text.
fn field(text: &str) -> String {
    let text = words::clean(text);
    let number = text.parse::<f64>().is_ok();
    let guard = if !number && text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    if guard.is_empty() && !text.contains([',', '"', ';']) {
        return text;
    }
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

fn member(body: &serde_json::Value, name: &str) -> String {
    match &body[name] {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first line of a spreadsheet.
pub(super) fn csv_heading() -> String {
    let mut all = vec!["entry", "time", "kind", "subject", "actor"];
    all.extend(FIRST);
    all.extend(["body", "hash", "previous"]);
    all.join(",")
}

/// A line of a spreadsheet; times in UTC.
pub(super) fn csv(entry: &JournalEntry) -> String {
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap_or_default();
    let mut all = vec![entry.sequence.to_string(), words::utc(entry.at.as_ref())];
    all.extend([&entry.kind, &entry.subject, &entry.actor].map(|text| field(text)));
    all.extend(FIRST.map(|name| field(&member(&body, name))));
    all.extend([field(&entry.body), entry.hash.clone(), entry.previous.clone()]);
    all.join(",")
}

fn escaped(text: &str) -> String {
    words::clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page up to its rows.
pub(super) fn html_heading(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\n\
         body {{ font: 10pt sans-serif }} table {{ border-collapse: collapse; width: 100% }}\n\
         td, th {{ border-bottom: 1px solid #999; padding: 2pt 4pt; text-align: left; vertical-align: top }}\n\
         thead {{ display: table-header-group }} tr {{ page-break-inside: avoid }} .hash {{ font: 6pt monospace }}\n\
         </style></head><body>\n<h1>{title}</h1>\n\
         <table><thead><tr><th>Entry</th><th>Time</th><th>What</th><th>About</th><th>By</th><th>Particulars</th>\
         </tr></thead><tbody>"
    )
}

/// A row of the page.
pub(super) fn html(style: &Style, entry: &JournalEntry) -> String {
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap_or_default();
    let mut particulars = String::new();
    for (name, value) in body.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Writing to a string cannot fail.
        let _ = write!(particulars, "{}: {}<br>", escaped(name), escaped(&value));
    }
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{particulars}<span class=\"hash\">{}</span></td></tr>",
        entry.sequence,
        escaped(&style.time(entry.at.as_ref())),
        escaped(&entry.kind),
        escaped(&entry.subject),
        escaped(&entry.actor),
        escaped(&entry.hash),
    )
}

/// What follows the rows.
pub(super) fn html_end(entries: u64) -> String {
    format!(
        "</tbody></table>\n<p>{entries} entries. Each hash binds its entry to the one before; verify with \
         <code>ladewartctl journal verify</code>, or the export as JSON with <code>--file</code>.</p>\n</body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> JournalEntry {
        JournalEntry {
            sequence: 7,
            at: Style::ago(60),
            kind: "event.sample".into(),
            subject: "=cmd|x".into(),
            actor: "<b>".into(),
            body: r#"{"mean_watts":4000,"event":"l1@1","reason":"a, \"b\""}"#.into(),
            hash: "aa".into(),
            previous: "bb".into(),
        }
    }

    #[test]
    fn a_spreadsheet_has_a_column_for_each_heading_and_runs_nothing() {
        let line = csv(&entry());
        assert!(
            line.starts_with("7,2026-11-23T10:59:00Z,event.sample,\"'=cmd|x\",<b>,l1@1,,,4000,"),
            "{line}"
        );
        assert!(line.contains("\"a, \"\"b\"\"\""), "{line}");
        assert!(line.ends_with(",aa,bb"), "{line}");
        assert_eq!(csv_heading().split(',').count(), 20);
    }

    #[test]
    fn a_page_shows_text_as_text() {
        let page = [html_heading("a<b"), html(&Style::fixed(), &entry()), html_end(1)].join("\n");
        assert!(page.contains("<h1>a&lt;b</h1>") && page.contains("<td>&lt;b&gt;</td>"), "{page}");
        assert!(page.contains("mean_watts: 4000<br>") && page.ends_with("</body></html>"), "{page}");
    }
}
