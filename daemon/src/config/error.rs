//! Where in the document something is wrong, and how that is said.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    path::PathBuf,
};

use toml::de::{DeTable, DeValue};

/// A configuration that cannot be used. Shown as `file:line: field: problem`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    line: usize,
    field: String,
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// The document as read: turns fields into lines.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// Keeps a document and its name.
    #[must_use]
    pub fn new(file: PathBuf, text: String) -> Self {
        Self { file, text }
    }

    /// The directory that relative paths in the document start from.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.file.parent().map(PathBuf::from).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// An error at `field`, written as `evse[1].identity`.
    #[must_use]
    pub fn problem(&self, field: &str, problem: impl fmt::Display) -> ConfigError {
        let line = self.span_of(field).map_or(0, |span| self.line(span.start));
        ConfigError { file: self.file.clone(), line, field: field.to_owned(), problem: problem.to_string() }
    }

    /// An error without a place in the document.
    #[must_use]
    pub fn whole(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError { file: self.file.clone(), line: 0, field: String::new(), problem: problem.to_string() }
    }

    /// The parser's error, with the field found by its place.
    pub(crate) fn parse_error(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|s| s.start);
        let field = start.and_then(|at| self.field_at(at)).unwrap_or_default();
        let line = start.map_or(0, |at| self.line(at));
        ConfigError { file: self.file.clone(), line, field, problem: error.message().trim().to_owned() }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
    }

    /// The place of a field, or of the nearest enclosing field that is written down.
    fn span_of(&self, field: &str) -> Option<Range<usize>> {
        let doc = DeTable::parse(&self.text).ok()?;
        let mut span = None;
        let mut table = doc.get_ref();
        let mut array: Option<&toml::de::DeArray<'_>> = None;
        for part in field.split(['.', '[']) {
            let value = if let Some(index) = part.strip_suffix(']') {
                array.and_then(|a| index.parse::<usize>().ok().and_then(|i| a.get(i)))
            } else {
                table.get(part)
            };
            let Some(value) = value else { break };
            span = Some(value.span());
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(inner) => array = Some(inner),
                _ => break,
            }
        }
        span
    }

    /// The innermost field that covers a place.
    fn field_at(&self, at: usize) -> Option<String> {
        fn walk(value: &DeValue<'_>, at: usize, path: &mut String) {
            let covers = |span: &Range<usize>| span.contains(&at) || span.start == at;
            match value {
                DeValue::Table(table) => {
                    for (key, inner) in table {
                        if covers(&key.span()) || covers(&inner.span()) || holds(inner.get_ref(), at) {
                            if !path.is_empty() {
                                path.push('.');
                            }
                            path.push_str(key.get_ref());
                            walk(inner.get_ref(), at, path);
                            return;
                        }
                    }
                }
                DeValue::Array(items) => {
                    for (i, inner) in items.iter().enumerate() {
                        if covers(&inner.span()) || holds(inner.get_ref(), at) {
                            let _ = write!(path, "[{i}]");
                            walk(inner.get_ref(), at, path);
                            return;
                        }
                    }
                }
                _ => {}
            }
        }
        // A `[table]`'s span is its header's: look inside, too.
        fn holds(value: &DeValue<'_>, at: usize) -> bool {
            match value {
                DeValue::Table(table) => table
                    .iter()
                    .any(|(k, v)| k.span().contains(&at) || v.span().contains(&at) || holds(v.get_ref(), at)),
                DeValue::Array(items) => {
                    items.iter().any(|v| v.span().contains(&at) || holds(v.get_ref(), at))
                }
                _ => false,
            }
        }
        let doc = DeTable::parse(&self.text).ok()?;
        let mut path = String::new();
        walk(&DeValue::Table(doc.into_inner()), at, &mut path);
        (!path.is_empty()).then_some(path)
    }
}
