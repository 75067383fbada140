//! What a device tells as JSON: over HTTP when it is asked, over MQTT when it likes.
//!
//! In: the bytes of an answer or of a message. Out: its values in their base units, or the first thing in it that cannot be
//! believed, by name. Invariant: a value is a number of the document, never a guess; what is older than the definition
//! allows never counts. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::{device::quantity::Quantity, time::Wall};

/// What a device tells, and how long to wait for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Telling {
    /// For a whole answer over HTTP; for a switch's report over MQTT.
    pub answer: Duration,
    /// Older values do not count.
    pub max_age: Duration,
    /// Its documents.
    pub documents: Vec<Document>,
}

impl Telling {
    /// Index of the document that makes a reading: the one with the currents.
    #[must_use]
    pub fn main(&self) -> usize {
        let has = |d: &Document| d.values.iter().any(|v| v.quantity == Quantity::CurrentL1);
        self.documents.iter().position(has).unwrap_or_default()
    }
}

/// One answer or message.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Path and query of the request; or the topic below the device's own.
    pub place: String,
    /// Where it says when its values were measured.
    pub time: Option<Stamp>,
    /// What is in it.
    pub values: Vec<Pick>,
}

/// One value of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// What it is.
    pub quantity: Quantity,
    /// Where it stands (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// Number × this = value in the base unit of the quantity's kind.
    pub factor: f64,
    /// What means "not available"; null always does.
    pub invalid: Vec<Value>,
}

/// A time since 1970 in a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp {
    /// Where it stands.
    pub pointer: String,
    /// How many of its units make a second.
    pub per_second: f64,
}

/// An output that is switched by requests or messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// Closes it.
    pub on: Order,
    /// Opens it.
    pub off: Order,
    /// Tells what it is.
    pub read: Look,
    /// It opens by itself when it was not told again for so long.
    pub expires: Duration,
}

/// What is sent to a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Path and query; or the topic below the device's own.
    pub place: String,
    /// What is sent there; over HTTP without it a GET, else a POST.
    pub body: Option<String>,
}

/// Where a switch tells its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Path and query; or the topic below the device's own.
    pub place: String,
    /// Where it stands in the document.
    pub pointer: String,
    /// What stands there while it is closed.
    pub on: Value,
    /// What stands there while it is open.
    pub off: Value,
}

/// Something in a document that cannot be believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// No JSON at all.
    #[error("{place}: not JSON: {why}")]
    NotJson {
        /// Which document.
        place: String,
        /// The parser's words.
        why: String,
    },
    /// Nothing stands where the definition says.
    #[error("{what} is missing: {place} has no {pointer:?}")]
    Missing {
        /// A quantity, `time` or `state`.
        what: String,
        /// Which document.
        place: String,
        /// Where it was looked for.
        pointer: String,
    },
    /// Something else than a number stands there.
    #[error("{what} ({pointer:?}) is {shown}, not a number")]
    NotNumber {
        /// A quantity or `time`.
        what: String,
        /// Where.
        pointer: String,
        /// What stands there.
        shown: String,
    },
    /// The device says "not available".
    #[error("{what} ({pointer:?}) is not available: {shown}")]
    NotAvailable {
        /// A quantity.
        what: String,
        /// Where.
        pointer: String,
        /// What stands there.
        shown: String,
    },
    /// It was measured too long ago.
    #[error("{place}: its values are {age:?} old, more than {most:?}; look at the device's clock, too")]
    Old {
        /// Which document.
        place: String,
        /// By its own time.
        age: Duration,
        /// The definition's.
        most: Duration,
    },
    /// Neither of a switch's two states.
    #[error("state ({pointer:?}) is {shown}, neither {on} nor {off}")]
    NoState {
        /// Where.
        pointer: String,
        /// What stands there.
        shown: String,
        /// Closed.
        on: String,
        /// Open.
        off: String,
    },
}

impl DocumentError {
    /// What stays the same while the values in the message change: it is told once.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::NotJson { place, .. } => format!("not JSON {place}"),
            Self::Missing { what, .. } => format!("missing {what}"),
            Self::NotNumber { what, .. } => format!("no number {what}"),
            Self::NotAvailable { what, .. } => format!("not available {what}"),
            Self::Old { .. } => "old".to_owned(),
            Self::NoState { .. } => "no state".to_owned(),
        }
    }
}

/// A quantity and its value in its base unit, or why there is none.
pub type Picked = (Quantity, Result<f64, DocumentError>);

/// What is shown of a wrong value.
const SHOWN: usize = 60;

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((at, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The same value, however its number is written.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

fn json(place: &str, bytes: &[u8]) -> Result<Value, DocumentError> {
    serde_json::from_slice(bytes)
        .map_err(|e| DocumentError::NotJson { place: place.to_owned(), why: e.to_string() })
}

impl Document {
    /// Each value, or why it cannot be believed; an error as a whole where it is no JSON or too old.
    pub fn values(&self, bytes: &[u8], now: Wall, max_age: Duration) -> Result<Vec<Picked>, DocumentError> {
        let document = json(&self.place, bytes)?;
        if let Some(stamp) = &self.time {
            let at = self.number(&document, "time", &stamp.pointer)? / stamp.per_second;
            let age = now.0 as f64 / 1000.0 - at;
            // A clock that is ahead says as little about the age as one that is behind.
            if age.abs() > max_age.as_secs_f64() {
                let age = Duration::try_from_secs_f64(age.abs()).unwrap_or(Duration::MAX);
                let age = Duration::from_secs(age.as_secs());
                return Err(DocumentError::Old { place: self.place.clone(), age, most: max_age });
            }
        }
        let one = |pick: &Pick| (pick.quantity, self.pick(&document, pick));
        Ok(self.values.iter().map(one).collect())
    }

    fn pick(&self, document: &Value, pick: &Pick) -> Result<f64, DocumentError> {
        let what = pick.quantity.name();
        if let Some(value) = document.pointer(&pick.pointer)
            && (value.is_null() || pick.invalid.iter().any(|invalid| same(invalid, value)))
        {
            let pointer = pick.pointer.clone();
            return Err(DocumentError::NotAvailable { what: what.to_owned(), pointer, shown: shown(value) });
        }
        Ok(self.number(document, what, &pick.pointer)? * pick.factor)
    }

    fn number(&self, document: &Value, what: &str, pointer: &str) -> Result<f64, DocumentError> {
        let (what, place) = (what.to_owned(), self.place.clone());
        let Some(value) = document.pointer(pointer) else {
            return Err(DocumentError::Missing { what, place, pointer: pointer.to_owned() });
        };
        value.as_f64().ok_or_else(|| DocumentError::NotNumber {
            what,
            pointer: pointer.to_owned(),
            shown: shown(value),
        })
    }
}

impl Look {
    /// Whether the switch is closed.
    pub fn state(&self, bytes: &[u8]) -> Result<bool, DocumentError> {
        // A topic may carry a bare word.
        let word = || std::str::from_utf8(bytes).ok().map(|t| Value::String(t.trim().to_owned()));
        let document = match (json(&self.place, bytes), self.pointer.is_empty()) {
            (Ok(document), _) => document,
            (Err(error), true) => word().ok_or(error)?,
            (Err(error), false) => return Err(error),
        };
        match document.pointer(&self.pointer) {
            Some(value) if same(value, &self.on) => Ok(true),
            Some(value) if same(value, &self.off) => Ok(false),
            Some(value) => Err(DocumentError::NoState {
                pointer: self.pointer.clone(),
                shown: shown(value),
                on: self.on.to_string(),
                off: self.off.to_string(),
            }),
            None => Err(DocumentError::Missing {
                what: "state".to_owned(),
                place: self.place.clone(),
                pointer: self.pointer.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Document {
        let pick = |quantity, pointer: &str, factor| Pick {
            quantity,
            pointer: pointer.to_owned(),
            factor,
            invalid: vec![json!(-1), json!("n/a")],
        };
        Document {
            place: "/status".to_owned(),
            time: Some(Stamp { pointer: "/ts".to_owned(), per_second: 1000.0 }),
            values: vec![
                pick(Quantity::VoltageL1, "/l/0/u", 0.1),
                pick(Quantity::CurrentL1, "/l/0/i", 0.001),
            ],
        }
    }

    fn said(document: &str) -> Result<Vec<Picked>, String> {
        let now = Wall(1_700_000_000_000);
        self::document().values(document.as_bytes(), now, Duration::from_secs(10)).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_found_by_pointer_and_scaled() {
        let values = said(r#"{"ts": 1699999995000, "l": [{"u": 2305, "i": 16000}]}"#).unwrap();
        let values: Vec<_> = values.into_iter().map(|(q, v)| (q, v.unwrap())).collect();
        assert_eq!(values, [(Quantity::VoltageL1, 230.5), (Quantity::CurrentL1, 16.0)]);
    }

    #[test]
    fn what_cannot_be_believed_is_refused_by_name() {
        let first = |text: &str| said(text).unwrap().remove(0).1.unwrap_err().to_string();
        let at = |l: &str| format!(r#"{{"ts": 1700000000000, "l": {l}}}"#);
        assert_eq!(first(&at("[]")), "voltage-l1 is missing: /status has no \"/l/0/u\"");
        assert_eq!(first(&at(r#"[{"u": "230"}]"#)), "voltage-l1 (\"/l/0/u\") is \"230\", not a number");
        assert_eq!(first(&at(r#"[{"u": null}]"#)), "voltage-l1 (\"/l/0/u\") is not available: null");
        assert_eq!(first(&at(r#"[{"u": -1}]"#)), "voltage-l1 (\"/l/0/u\") is not available: -1");
        let long = first(&at(&format!(r#"[{{"u": "{}"}}]"#, "ü".repeat(500))));
        assert!(long.chars().count() < 150, "{long}");
        let whole = |text: &str| said(text).unwrap_err();
        assert_eq!(whole("{\"ts\": 1"), "/status: not JSON: EOF while parsing an object at line 1 column 8");
        assert!(whole("<html>").starts_with("/status: not JSON: "), "{}", whole("<html>"));
        assert_eq!(whole("{}"), "time is missing: /status has no \"/ts\"");
        assert_eq!(
            whole(r#"{"ts": 1699999960000}"#),
            "/status: its values are 40s old, more than 10s; look at the device's clock, too"
        );
        assert!(whole(r#"{"ts": 9e300}"#).contains("old, more than 10s"));
    }

    #[test]
    fn a_switch_is_closed_open_or_says_why_not() {
        let look =
            |pointer: &str, on, off| Look { place: "state".to_owned(), pointer: pointer.to_owned(), on, off };
        let shelly = look("/output", json!(true), json!(false));
        assert_eq!(shelly.state(br#"{"id": 0, "output": true}"#), Ok(true));
        assert_eq!(shelly.state(br#"{"id": 0, "output": false}"#), Ok(false));
        let wrong = |text: &str| shelly.state(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(wrong(r#"{"output": 1}"#), "state (\"/output\") is 1, neither true nor false");
        assert_eq!(wrong("{}"), "state is missing: state has no \"/output\"");
        assert!(wrong("ON").contains("not JSON"));
        let word = look("", json!("ON"), json!("OFF"));
        assert_eq!(word.state(b"ON"), Ok(true));
        assert_eq!(word.state(b"OFF\n"), Ok(false));
        assert!(word.state(b"\xff").is_err() && word.state(b"0").is_err());
    }
}
