//! Frames of OCPP-J (1.6 §4.2, 2.1 Part 4 §4.2): looked into, never re-written.
//!
//! In: the text of one WebSocket message. Out: type, id, action and the payload as a slice of that text, or what is
//! wrong with it and the id to complain under. Invariant: nothing here changes a byte of a frame that passes; the
//! one number that must change on its way is replaced in place ([`Number::put`]).

use std::{borrow::Cow, collections::HashMap, ops::Range};

use serde_json::value::RawValue;

/// Longest id token that is taken up; 1.6 allows 36 characters, the field sends more.
const MAX_ID: usize = 256;

/// A message id as its sender wrote it. Some peers write numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(String);

impl Id {
    fn new(token: &str) -> Option<Self> {
        let first = token.as_bytes().first()?;
        let fits = token.len() <= MAX_ID && (*first == b'"' || *first == b'-' || first.is_ascii_digit());
        fits.then(|| Self(token.to_owned()))
    }

    /// The JSON token, to be sent back as it came.
    pub(crate) fn token(&self) -> &str {
        &self.0
    }

    /// What answers are matched by: a number and the same digits in quotes are one id.
    pub(crate) fn key(&self) -> &str {
        self.0.trim_matches('"')
    }
}

/// A frame, borrowed from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// CALL.
    Call { id: Id, action: Cow<'a, str>, payload: &'a str },
    /// CALLRESULT.
    Answer { id: Id, payload: &'a str },
    /// CALLERROR.
    Error { id: Id, code: String },
    /// SEND: a CALL that wants no answer (2.1).
    Send { id: Id, action: Cow<'a, str>, payload: &'a str },
    /// CALLRESULTERROR: our answer could not be read (2.1).
    AnswerError { id: Id, code: String },
    /// A type that no version knows; to be ignored (1.6 §4.1.3).
    Unknown,
}

/// Why a text is no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// In words.
    pub(crate) why: &'static str,
    /// The id to answer under: set if it was a CALL whose id can be made out.
    pub(crate) id: Option<Id>,
}

fn unquoted(token: &str) -> &str {
    token.trim_matches('"')
}

/// Looks into a text.
pub(crate) fn peek(text: &str) -> Result<Frame<'_>, Malformed> {
    let text = text.trim_matches(|c: char| c == '\u{feff}' || c == '\0' || c.is_ascii_whitespace());
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(text) else {
        let why = if text.starts_with('[') { "is not valid JSON" } else { "is not a JSON array" };
        return Err(Malformed { why, id: recover(text) });
    };
    let part = |at: usize| parts.get(at).map(|p| p.get());
    let (Some(kind), Some(token)) = (part(0), part(1)) else {
        return Err(Malformed { why: "has fewer than two elements", id: None });
    };
    let is_call = unquoted(kind) == "2";
    let Some(id) = Id::new(token) else {
        return Err(Malformed { why: "has no usable message id", id: None });
    };
    match unquoted(kind) {
        "2" | "6" => {
            let action = part(2).and_then(|a| serde_json::from_str::<String>(a).ok());
            let Some(action) = action.filter(|a| !a.is_empty() && a.len() <= MAX_ID) else {
                return Err(Malformed { why: "is a CALL without an action", id: is_call.then_some(id) });
            };
            // §4.2.1: an empty payload should be `{}`; `null` and nothing at all are seen, too.
            let payload = part(3).unwrap_or("{}");
            if !(payload.starts_with('{') || payload == "null") {
                return Err(Malformed {
                    why: "is a CALL whose payload is not an object",
                    id: is_call.then_some(id),
                });
            }
            let action = Cow::Owned(action);
            Ok(if is_call {
                Frame::Call { id, action, payload }
            } else {
                Frame::Send { id, action, payload }
            })
        }
        "3" => Ok(Frame::Answer { id, payload: part(2).unwrap_or("{}") }),
        "4" => Ok(Frame::Error { id, code: part(2).map(unquoted).unwrap_or_default().to_owned() }),
        "5" => Ok(Frame::AnswerError { id, code: part(2).map(unquoted).unwrap_or_default().to_owned() }),
        number if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => Ok(Frame::Unknown),
        _ => Err(Malformed { why: "has no message type", id: is_call.then_some(id) }),
    }
}

/// The id of a broken CALL, if its beginning is whole.
fn recover(text: &str) -> Option<Id> {
    let rest = text.strip_prefix('[')?.trim_start().strip_prefix('2')?.trim_start().strip_prefix(',')?;
    let token = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>().next()?.ok()?;
    Id::new(token.get())
}

/// A CALL of our own.
pub(crate) fn call(id: &str, action: &str, payload: &str) -> String {
    format!("[2,\"{id}\",\"{action}\",{payload}]")
}

/// A CALLRESULT.
pub(crate) fn result(id: &Id, payload: &str) -> String {
    format!("[3,{},{payload}]", id.token())
}

/// A CALLERROR; `code` in the spelling of the connection's version (1.6-J §4.2.3, 2.0.1 Part 4 §4.3). `description` must not need escapes.
pub(crate) fn error(id: &Id, code: &str, description: &str) -> String {
    format!("[4,{},\"{code}\",\"{description}\",{{}}]", id.token())
}

/// A number inside a text, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    /// Its value.
    pub(crate) value: i64,
    at: Range<usize>,
}

impl Number {
    /// Finds the number behind `path` in `payload`, which must be a slice of `text`.
    pub(crate) fn find(text: &str, payload: &str, path: &[&str]) -> Option<Self> {
        let mut slice = payload;
        for key in path {
            slice = serde_json::from_str::<HashMap<String, &RawValue>>(slice).ok()?.get(*key)?.get();
        }
        let digits = unquoted(slice);
        let start = (digits.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let at = start..start.checked_add(digits.len())?;
        (text.get(at.clone()) == Some(digits)).then_some(())?;
        Some(Self { value: digits.parse().ok()?, at })
    }

    /// The text with another number in its place and every other byte as it was.
    pub(crate) fn put(&self, text: &str, value: i64) -> String {
        format!("{}{value}{}", &text[..self.at.start], &text[self.at.end..])
    }
}

/// The text with a top-level member of its payload set to a JSON value, and every other byte as it was; `None` if its
/// payload is no object.
pub(crate) fn with_member(text: &str, name: &str, value: &str) -> Option<String> {
    let Ok(Frame::Call { payload, .. } | Frame::Answer { payload, .. }) = peek(text) else { return None };
    let members: HashMap<String, &RawValue> = serde_json::from_str(payload).ok()?;
    let offset = |part: &str| (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
    if let Some(old) = members.get(name) {
        let start = offset(old.get())?;
        return Some(format!("{}{value}{}", text.get(..start)?, text.get(start + old.get().len()..)?));
    }
    let inside = offset(payload)? + 1;
    let comma = if members.is_empty() { "" } else { "," };
    Some(format!("{}\"{name}\":{value}{comma}{}", text.get(..inside)?, text.get(inside..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(token: &str) -> Id {
        Id(token.to_owned())
    }

    #[test]
    fn the_three_frames_are_told_apart() {
        let call = r#"[2,"19223201","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]"#;
        let Ok(Frame::Call { id: i, action, payload }) = peek(call) else { panic!() };
        assert_eq!((i.key(), action.as_ref()), ("19223201", "BootNotification"));
        assert_eq!(payload, r#"{"chargePointVendor":"V","chargePointModel":"M"}"#);
        assert_eq!(peek(r#"[3,"1",{"a":1}]"#), Ok(Frame::Answer { id: id("\"1\""), payload: r#"{"a":1}"# }));
        assert_eq!(
            peek(r#"[4,"1","NotImplemented","",{}]"#),
            Ok(Frame::Error { id: id("\"1\""), code: "NotImplemented".into() })
        );
    }

    /// Frames as real boxes send them. Left: the text; right: what is made of it.
    #[test]
    fn quirks_of_the_field_are_taken() {
        let call = |text: &str| match peek(text) {
            Ok(Frame::Call { id, action, payload }) => format!("{} {action} {payload}", id.token()),
            other => format!("{other:?}"),
        };
        for (text, expected) in [
            ("[2,17,\"Heartbeat\",{}]", "17 Heartbeat {}"),
            ("[2,-1,\"Heartbeat\",{}]", "-1 Heartbeat {}"),
            ("[\"2\",\"17\",\"Heartbeat\",{}]", "\"17\" Heartbeat {}"),
            ("\u{feff} [ 2 , \"a\" , \"Heartbeat\" , {} ]\r\n\0", "\"a\" Heartbeat {}"),
            ("[2,\"a\",\"Heartbeat\"]", "\"a\" Heartbeat {}"),
            ("[2,\"a\",\"Heartbeat\",null]", "\"a\" Heartbeat null"),
            ("[2,\"a\",\"Heartbeat\",{},\"extra\"]", "\"a\" Heartbeat {}"),
            ("[2,\"a\",\"Heart\\u0062eat\",{}]", "\"a\" Heartbeat {}"),
            ("[2,\"\",\"Heartbeat\",{}]", "\"\" Heartbeat {}"),
            ("[2,\"é✓\",\"Heartbeat\",{}]", "\"é✓\" Heartbeat {}"),
            ("[2,\"a\",\"DataTransfer\",{\"x\":1e999}]", "\"a\" DataTransfer {\"x\":1e999}"),
        ] {
            assert_eq!(call(text), expected, "{text}");
        }
        assert_eq!(peek("[7,\"a\",\"NotifyPeriodicEventStream\",{}]"), Ok(Frame::Unknown));
        assert!(matches!(peek("[6,\"a\",\"NotifyPeriodicEventStream\",{}]"), Ok(Frame::Send { .. })));
        assert!(matches!(peek("[5,\"a\",\"InternalError\",\"\",{}]"), Ok(Frame::AnswerError { .. })));
        assert_eq!(peek("[3,5]"), Ok(Frame::Answer { id: id("5"), payload: "{}" }));
        assert_eq!(id("5").key(), id("\"5\"").key());
    }

    #[test]
    fn a_broken_call_keeps_its_id_where_it_can_be_read() {
        let bad = |text: &str| peek(text).unwrap_err().id.map(|i| i.token().to_owned());
        assert_eq!(bad(r#"[2,"abc","MeterValues",{"connectorId":}]"#).as_deref(), Some("\"abc\""));
        assert_eq!(bad(r#"[2, 12 ,"MeterValues",{"#).as_deref(), Some("12"));
        assert_eq!(bad(r#"[2,"abc","MeterValues",[1]]"#).as_deref(), Some("\"abc\""));
        assert_eq!(bad(r#"[2,"abc",7,{}]"#).as_deref(), Some("\"abc\""));
        for text in
            ["[,{}]", "", "{}", "null", "[]", "[2]", "[2,null,\"A\",{}]", "[3,{},{}]", "hello", "[2,\"a"]
        {
            assert_eq!(bad(text), None, "{text}");
        }
        assert_eq!(bad(&format!("[2,\"{}\",\"A\",{{}}]", "x".repeat(300))), None);
        assert_eq!(bad("[{},\"a\",\"A\",{}]"), None);
    }

    #[test]
    fn a_number_is_replaced_and_nothing_else() {
        let text = r#"[2, "a","MeterValues", {"meterValue":[{"transactionId":7}],  "transactionId" : 7 ,"x":"\u00e4"}]"#;
        let Ok(Frame::Call { payload, .. }) = peek(text) else { panic!() };
        let number = Number::find(text, payload, &["transactionId"]).unwrap();
        assert_eq!(number.value, 7);
        assert_eq!(
            number.put(text, 123_456),
            r#"[2, "a","MeterValues", {"meterValue":[{"transactionId":7}],  "transactionId" : 123456 ,"x":"\u00e4"}]"#
        );
        let text = r#"[2,"a","SetChargingProfile",{"csChargingProfiles":{"transactionId":"42"}}]"#;
        let Ok(Frame::Call { payload, .. }) = peek(text) else { panic!() };
        let number = Number::find(text, payload, &["csChargingProfiles", "transactionId"]).unwrap();
        assert!(number.put(text, -1).contains(r#""transactionId":"-1""#));
        for text in [
            r#"[2,"a","A",{}]"#,
            r#"[2,"a","A",{"transactionId":null}]"#,
            r#"[2,"a","A",{"transactionId":1.5}]"#,
        ] {
            let Ok(Frame::Call { payload, .. }) = peek(text) else { panic!() };
            assert_eq!(Number::find(text, payload, &["transactionId"]), None, "{text}");
        }
    }

    #[test]
    fn a_member_is_set_and_nothing_else() {
        let set = |text: &str| with_member(text, "offline", "true").unwrap();
        assert_eq!(
            set(r#"[2,"a","T", {"seqNo":1.0, "offline" : false ,"x":{"offline":false}}]"#),
            r#"[2,"a","T", {"seqNo":1.0, "offline" : true ,"x":{"offline":false}}]"#
        );
        assert_eq!(set(r#"[2,"a","T",{"seqNo":1}]"#), r#"[2,"a","T",{"offline":true,"seqNo":1}]"#);
        assert_eq!(set(r#"[2,"a","T",{ }]"#), r#"[2,"a","T",{"offline":true }]"#);
        assert_eq!(with_member("[4,\"a\",\"x\"]", "offline", "true"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_peeked_without_panic(text in "\\PC*") {
            let _ = peek(&text);
            let _ = peek(&format!("[2,{text}"));
        }
    }
}
