//! OCPP-J 1.6 §4.2 frames, as the simulated backend and charge points read and write them. Written on its own:
//! the daemon's codec is not used here.

use serde_json::{Value, json};

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// `[2, id, action, payload]`
    Call {
        /// Message id.
        id: String,
        /// Action.
        action: String,
        /// Payload.
        payload: Value,
    },
    /// `[3, id, payload]`
    Result {
        /// Message id of the call.
        id: String,
        /// Payload.
        payload: Value,
    },
    /// `[4, id, code, description, details]`
    Error {
        /// Message id of the call.
        id: String,
        /// Error code.
        code: String,
        /// Description.
        description: String,
    },
}

impl Frame {
    /// Reads a frame; `None` if it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let items: Vec<Value> = serde_json::from_str(text).ok()?;
        let text = |i: usize| items.get(i).and_then(Value::as_str).map(str::to_owned);
        match items.first()?.as_i64()? {
            2 => Some(Self::Call { id: text(1)?, action: text(2)?, payload: items.get(3)?.clone() }),
            3 => Some(Self::Result { id: text(1)?, payload: items.get(2)?.clone() }),
            4 => Some(Self::Error { id: text(1)?, code: text(2)?, description: text(3).unwrap_or_default() }),
            _ => None,
        }
    }

    /// Writes it.
    #[must_use]
    pub fn write(&self) -> String {
        match self {
            Self::Call { id, action, payload } => json!([2, id, action, payload]),
            Self::Result { id, payload } => json!([3, id, payload]),
            Self::Error { id, code, description } => json!([4, id, code, description, {}]),
        }
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_what_they_write() {
        for frame in [
            Frame::Call { id: "1".into(), action: "Heartbeat".into(), payload: json!({}) },
            Frame::Result { id: "1".into(), payload: json!({ "currentTime": "2026-11-23T00:00:00Z" }) },
            Frame::Error { id: "1".into(), code: "NotImplemented".into(), description: "no".into() },
        ] {
            assert_eq!(Frame::read(&frame.write()), Some(frame));
        }
        for bad in ["", "{}", "[]", "[2]", "[2,\"1\"]", "[9,\"1\",{}]", "[2,1,2,3]"] {
            assert_eq!(Frame::read(bad), None, "{bad}");
        }
    }
}
