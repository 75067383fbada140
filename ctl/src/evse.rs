//! `ladewartctl evse`.

use clap::Subcommand;
use ladewart_proto::v1::{self, ConnectorStatus, evse_service_client::EvseServiceClient};

use tonic::transport::Channel;

use crate::{
    failure::Failure,
    json,
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Evse {
    /// Every configured charging point, connected or not.
    List,
    /// The same, then a line for each change.
    Watch {
        /// Only this one.
        id: Option<String>,
    },
    /// Shows a card to a charging point, as its holder would.
    #[command(alias = "authorize")]
    Authorise {
        /// The charging point.
        id: String,
        /// The card (IdTag).
        #[arg(long, value_name = "CARD")]
        tag: String,
    },
    /// Begins a charge.
    Start {
        /// The charging point.
        id: String,
        /// For whom: the card (IdTag).
        #[arg(long, value_name = "CARD")]
        tag: String,
    },
    /// Ends the running charge.
    Stop {
        /// The charging point.
        id: String,
    },
    /// Lets go of the plug.
    Unlock {
        /// The charging point.
        id: String,
    },
    /// Starts the charging point again.
    Reset {
        /// The charging point.
        id: String,
        /// Without ending the charge in an orderly way first.
        #[arg(long)]
        hard: bool,
    },
    /// Puts it in service.
    Enable {
        /// The charging point.
        id: String,
    },
    /// Takes it out of service; a running charge is finished first.
    Disable {
        /// The charging point.
        id: String,
    },
}

impl Evse {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = EvseServiceClient::new(session.channel().await?);
        match self {
            Self::List => {
                let answer = session.call(client.list_evses(v1::ListEvsesRequest {})).await?;
                session.show("ListEvsesResponse", &answer, |style| list(style, &answer.evses)).await
            }
            Self::Watch { id } => {
                let request = v1::WatchEvsesRequest { id: id.unwrap_or_default() };
                let mut changes = session.call(client.watch_evses(request)).await?;
                let json = session.json_or(false);
                while let Some(answer) = changes.message().await? {
                    let Some(evse) = answer.evse else { continue };
                    let text = if json { json::line("Evse", &evse)? } else { news(&session.style(), &evse) };
                    session.output.line(&text).await?;
                }
                Ok(())
            }
            Self::Authorise { id, tag } => {
                let request = v1::AuthorizeEvseRequest { id: id.clone(), id_tag: tag };
                let answer = session.call(client.authorize_evse(request)).await?;
                let done = done(&id, &answer.status, "takes the card");
                session.show("AuthorizeEvseResponse", &answer, |_| done).await
            }
            Self::Start { id, tag } => {
                let request = v1::StartChargeRequest { id: id.clone(), id_tag: tag };
                let answer = session.call(client.start_charge(request)).await?;
                let done = done(&id, &answer.status, "begins a charge");
                session.show("StartChargeResponse", &answer, |_| done).await
            }
            Self::Stop { id } => {
                let request = v1::StopChargeRequest { id: id.clone() };
                let answer = session.call(client.stop_charge(request)).await?;
                let done = done(&id, &answer.status, "ends its charge");
                session.show("StopChargeResponse", &answer, |_| done).await
            }
            Self::Unlock { id } => {
                let request = v1::UnlockConnectorRequest { id: id.clone() };
                let answer = session.call(client.unlock_connector(request)).await?;
                let done = done(&id, &answer.status, "lets go of the plug");
                session.show("UnlockConnectorResponse", &answer, |_| done).await
            }
            Self::Reset { id, hard } => {
                let request = v1::ResetEvseRequest { id: id.clone(), hard };
                let answer = session.call(client.reset_evse(request)).await?;
                let done = done(&id, &answer.status, "starts again");
                session.show("ResetEvseResponse", &answer, |_| done).await
            }
            Self::Enable { id } => availability(session, client, id, true).await,
            Self::Disable { id } => availability(session, client, id, false).await,
        }
    }
}

async fn availability(
    session: &mut Session,
    mut client: EvseServiceClient<Channel>,
    id: String,
    operative: bool,
) -> Result<(), Failure> {
    let request = v1::SetAvailabilityRequest { id: id.clone(), operative };
    let answer = session.call(client.set_availability(request)).await?;
    let done = done(&id, &answer.status, if operative { "is in service" } else { "is out of service" });
    session.show("SetAvailabilityResponse", &answer, |_| done).await
}

/// `"left begins a charge."`; an answer other than a plain yes is added.
fn done(id: &str, status: &str, what: &str) -> String {
    match status {
        "Accepted" | "Unlocked" => format!("{} {what}.", words::clean(id)),
        "Scheduled" => format!("{} {what} once its charge has ended.", words::clean(id)),
        other => format!("{} {what} ({}).", words::clean(id), words::clean(other)),
    }
}

/// A change, on one line.
fn news(style: &Style, evse: &v1::Evse) -> String {
    let time = style.short(Some(&prost_types::Timestamp { seconds: style.now.as_second(), nanos: 0 }));
    let parts = [
        words::text(&evse.id),
        state(evse).to_owned(),
        format!("may draw {}", setpoint(evse)),
        format!("draws {}", draw(evse)),
        format!("transaction {}", transaction(evse)),
        format!("backend {}", backend(evse)),
    ];
    format!("{time}  {}", parts.join("  "))
}

/// What the connector does, in a word.
pub(crate) fn state(evse: &v1::Evse) -> &'static str {
    if !evse.connected {
        return "offline";
    }
    match evse.status() {
        ConnectorStatus::Unspecified => "unknown",
        ConnectorStatus::Available => "available",
        ConnectorStatus::Preparing => "preparing",
        ConnectorStatus::Charging => "charging",
        ConnectorStatus::SuspendedEvse => "paused by the site",
        ConnectorStatus::SuspendedEv => "paused by the car",
        ConnectorStatus::Finishing => "finishing",
        ConnectorStatus::Reserved => "reserved",
        ConnectorStatus::Unavailable => "out of service",
        ConnectorStatus::Faulted => "faulted",
    }
}

/// What it may draw: `"16.0 A"`, with a mark while the EVSE has not confirmed it.
pub(crate) fn setpoint(evse: &v1::Evse) -> String {
    evse.setpoint.as_ref().map_or_else(
        || NOTHING.to_owned(),
        |s| format!("{}{}", words::amps(s.milliamps), if s.confirmed { "" } else { " (not confirmed)" }),
    )
}

fn lease(style: &Style, evse: &v1::Evse) -> String {
    let Some(setpoint) = &evse.setpoint else {
        return NOTHING.to_owned();
    };
    let then = words::amps(setpoint.failsafe_milliamps);
    match (setpoint.lease_until, style.until(setpoint.lease_until.as_ref())) {
        (None, _) => NOTHING.to_owned(),
        (Some(_), Some(left)) => format!("{left}, then {then}"),
        (Some(_), None) => format!("over: {then}"),
    }
}

fn draw(evse: &v1::Evse) -> String {
    let Some(draw) = &evse.draw else {
        return NOTHING.to_owned();
    };
    match (&draw.currents, draw.power_watts) {
        (Some(currents), Some(watts)) => {
            format!("{}, {}", words::phases(Some(currents)), words::watts(watts))
        }
        (Some(currents), None) => words::phases(Some(currents)),
        (None, Some(watts)) => words::watts(watts),
        (None, None) => NOTHING.to_owned(),
    }
}

fn backend(evse: &v1::Evse) -> String {
    let link = if evse.backend_connected { "connected" } else { "not connected" };
    let counted = |count: u64, what| {
        if count > 0 { format!(", {count} {what}") } else { String::new() }
    };
    format!("{link}{}{}", counted(evse.queued_messages, "wait"), counted(evse.dead_messages, "refused"))
}

fn transaction(evse: &v1::Evse) -> String {
    evse.transaction.map_or_else(
        || NOTHING.to_owned(),
        |t| match t.backend_id {
            Some(backend) if backend != t.id => format!("{} (backend: {backend})", t.id),
            _ => t.id.to_string(),
        },
    )
}

/// Why the setpoint is what it is, or what is wrong.
fn why(evse: &v1::Evse) -> String {
    let reason = evse.setpoint.as_ref().map(|s| s.reason.as_str()).unwrap_or_default();
    let error = match evse.error_code.as_str() {
        "" => String::new(),
        code => format!("error {code}"),
    };
    let parts = [evse.problem.as_str(), &error, reason];
    words::text(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
}

/// What matters now: for `status`.
pub(crate) fn overview(style: &Style, evses: &[v1::Evse]) -> String {
    let row = |evse: &v1::Evse| {
        vec![
            words::text(&evse.id),
            state(evse).to_owned(),
            setpoint(evse),
            draw(evse),
            backend(evse),
            why(evse),
        ]
    };
    table(style, &["EVSE", "STATE", "MAY DRAW", "DRAWS", "BACKEND", "WHY"], evses.iter().map(row).collect())
}

/// Everything.
pub(crate) fn list(style: &Style, evses: &[v1::Evse]) -> String {
    if evses.is_empty() {
        return "This site has no charging points.\n".to_owned();
    }
    let row = |evse: &v1::Evse| {
        vec![
            words::text(&evse.id),
            words::text(&evse.identity),
            words::text(&evse.node),
            words::text(format!("{} {}", evse.vendor, evse.model).trim()),
            state(evse).to_owned(),
            setpoint(evse),
            lease(style, evse),
            draw(evse),
            transaction(evse),
            backend(evse),
            why(evse),
        ]
    };
    let headings = [
        "EVSE",
        "IDENTITY",
        "NODE",
        "MAKE",
        "STATE",
        "MAY DRAW",
        "FOR",
        "DRAWS",
        "TRANSACTION",
        "BACKEND",
        "WHY",
    ];
    table(style, &headings, evses.iter().map(row).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn samples() -> Vec<v1::Evse> {
        let currents = |ma| v1::PhaseCurrents { l1_milliamps: ma, l2_milliamps: ma, l3_milliamps: 0 };
        vec![
            v1::Evse {
                id: "wb1".into(),
                identity: "DE*LAD*1".into(),
                node: "grid".into(),
                connected: true,
                connected_since: Style::ago(3600),
                backend_connected: true,
                status: ConnectorStatus::Charging.into(),
                vendor: "Acme".into(),
                model: "W\u{1b}[31m1".into(),
                transaction: Some(v1::Transaction {
                    id: -3,
                    backend_id: Some(1207),
                    started: Style::ago(1800),
                    meter_start_watthours: 120_400,
                }),
                setpoint: Some(v1::Setpoint {
                    milliamps: 10_500,
                    failsafe_milliamps: 6000,
                    confirmed: true,
                    lease_until: Style::ago(-42),
                    reason: "limit dso-1 of uid:1001: 10 kW at grid".into(),
                }),
                draw: Some(v1::Draw {
                    currents: Some(currents(10_420)),
                    power_watts: Some(4793),
                    energy_watthours: Some(128_000),
                    at: Style::ago(4),
                }),
                ..Default::default()
            },
            v1::Evse {
                id: "wb2".into(),
                identity: "DE*LAD*2".into(),
                node: "garage".into(),
                connected: true,
                status: ConnectorStatus::SuspendedEvse.into(),
                error_code: "WeakSignal".into(),
                setpoint: Some(v1::Setpoint {
                    milliamps: 0,
                    failsafe_milliamps: 0,
                    confirmed: false,
                    lease_until: Style::ago(3),
                    reason: "no room for 6 A; its turn comes in 4 min".into(),
                }),
                queued_messages: 17,
                dead_messages: 1,
                ..Default::default()
            },
            v1::Evse {
                id: "wb3".into(),
                identity: "DE*LAD*3".into(),
                node: "garage".into(),
                status: ConnectorStatus::Charging.into(),
                problem: "never connected".into(),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn the_list_shows_each_evse_on_one_line() {
        insta::assert_snapshot!(list(&Style::fixed(), &samples()));
    }

    #[test]
    fn orders_and_changes_are_sentences() {
        let lines = [
            done("left", "Accepted", "begins a charge"),
            done("left", "Scheduled", "is out of service"),
            done("le\u{1b}ft", "Odd", "starts again"),
            news(&Style::fixed(), &samples()[0]),
            news(&Style::fixed(), &samples()[2]),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(list(&Style::fixed(), &[]), "This site has no charging points.\n");
    }
}
