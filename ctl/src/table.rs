//! Tables without lines, as wide as the terminal at most.

use comfy_table::{ContentArrangement, Table, presets};

use crate::words::Style;

/// Rows under capital headings; without rows, nothing.
pub(crate) fn table(style: &Style, headings: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    render(style, Some(headings), rows)
}

/// Names and values; values that are not there are left out.
pub(crate) fn pairs(style: &Style, pairs: Vec<(&str, String)>) -> String {
    let there = pairs.into_iter().filter(|(_, value)| !value.is_empty() && value != crate::words::NOTHING);
    render(style, None, there.map(|(name, value)| vec![name.to_owned(), value]).collect())
}

fn render(style: &Style, headings: Option<&[&str]>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    if let Some(headings) = headings {
        table.set_header(headings);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}
