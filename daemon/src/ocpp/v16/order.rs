//! Orders of people in the words of OCPP 1.6.

use serde_json::json;

use super::message::{self, StatusAnswer};
use crate::ocpp::orders::{Action, Failed};

/// One connector per identity for now.
const CONNECTOR: i64 = 1;

/// Action and payload of the CALL. `running`: the transaction id that the EVSE knows.
pub(crate) fn order(action: &Action, running: Option<i64>) -> Result<(&'static str, String), Failed> {
    let (name, payload) = match action {
        // §6.33.
        Action::Start { id_tag } | Action::Authorize { id_tag } => {
            ("RemoteStartTransaction", json!({ "connectorId": CONNECTOR, "idTag": id_tag }))
        }
        // §6.35.
        Action::Stop => {
            let id = running.ok_or_else(|| Failed::Nothing("no charge runs at this EVSE".to_owned()))?;
            ("RemoteStopTransaction", json!({ "transactionId": id }))
        }
        // §6.55.
        Action::Unlock => ("UnlockConnector", json!({ "connectorId": CONNECTOR })),
        // §6.39.
        Action::Reset { hard } => ("Reset", json!({ "type": if *hard { "Hard" } else { "Soft" } })),
        // §6.3.
        Action::Availability { operative } => (
            "ChangeAvailability",
            json!({ "connectorId": CONNECTOR, "type": if *operative { "Operative" } else { "Inoperative" } }),
        ),
    };
    Ok((name, payload.to_string()))
}

/// Whether a CALLRESULT means yes.
pub(crate) fn outcome(payload: &str) -> Result<String, Failed> {
    let StatusAnswer { status, .. } = message::read(payload);
    match status.as_str() {
        "Accepted" | "Scheduled" | "Unlocked" => Ok(status),
        "NotSupported" | "NotImplemented" => Err(Failed::Unsupported(status)),
        _ => Err(Failed::Refused(status.chars().take(64).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_needs_a_charge_and_an_answer_its_word() {
        assert_eq!(
            order(&Action::Stop, Some(7)),
            Ok(("RemoteStopTransaction", r#"{"transactionId":7}"#.to_owned()))
        );
        assert!(matches!(order(&Action::Stop, None), Err(Failed::Nothing(_))));
        assert_eq!(outcome(r#"{"status":"Scheduled"}"#), Ok("Scheduled".into()));
        assert_eq!(outcome(r#"{"status":"Rejected"}"#), Err(Failed::Refused("Rejected".into())));
        assert_eq!(outcome(r#"{"status":"NotSupported"}"#), Err(Failed::Unsupported("NotSupported".into())));
        assert!(outcome("{}").is_err());
    }
}
