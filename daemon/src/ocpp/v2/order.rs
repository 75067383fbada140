//! Orders of people in the words of OCPP 2.0.1 and 2.1.

use serde_json::json;

use crate::ocpp::orders::{Action, Failed};

/// One EVSE with one connector per identity for now.
const EVSE: i64 = 1;

/// Action and payload of the CALL. `running`: the transactionId; `start`: a number for a start from afar.
pub(crate) fn order(
    action: &Action,
    running: Option<&str>,
    start: u64,
) -> Result<(&'static str, String), Failed> {
    let (name, payload) = match action {
        // F02: the card stands for a person of the site, given by its operator.
        Action::Start { id_tag } | Action::Authorize { id_tag } => (
            "RequestStartTransaction",
            json!({ "evseId": EVSE, "remoteStartId": start,
                    "idToken": { "idToken": id_tag, "type": "Central" } }),
        ),
        // F03.
        Action::Stop => {
            let id = running.ok_or_else(|| Failed::Nothing("no charge runs at this EVSE".to_owned()))?;
            ("RequestStopTransaction", json!({ "transactionId": id }))
        }
        // F05.
        Action::Unlock => ("UnlockConnector", json!({ "evseId": EVSE, "connectorId": 1 })),
        // B11, B12.
        Action::Reset { hard } => ("Reset", json!({ "type": if *hard { "Immediate" } else { "OnIdle" } })),
        // G03.
        Action::Availability { operative } => (
            "ChangeAvailability",
            json!({ "operationalStatus": if *operative { "Operative" } else { "Inoperative" },
                    "evse": { "id": EVSE } }),
        ),
    };
    Ok((name, payload.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_names_the_transaction_as_the_evse_does() {
        let stop = order(&Action::Stop, Some("a-1"), 1);
        assert_eq!(stop, Ok(("RequestStopTransaction", r#"{"transactionId":"a-1"}"#.to_owned())));
        assert!(matches!(order(&Action::Stop, None, 1), Err(Failed::Nothing(_))));
        let (name, payload) = order(&Action::Start { id_tag: "Ada".into() }, None, 7).unwrap();
        assert_eq!(name, "RequestStartTransaction");
        assert!(payload.contains(r#""remoteStartId":7"#), "{payload}");
    }
}
