//! Who must be heard from, and what devices are owed: parts of `ladewartctl limit`.

use jiff::SignedDuration;
use ladewart_proto::v1::{self, grid_service_client::GridServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    table::table,
    words::{self, Style},
};

/// A sign of life, once or until stopped.
pub(crate) async fn heartbeat(session: &mut Session, every: Option<SignedDuration>) -> Result<(), Failure> {
    let mut client = GridServiceClient::new(session.channel().await?);
    loop {
        let answer = session.call(client.heartbeat(v1::HeartbeatRequest {})).await?;
        let listed = answer.source.clone().into_iter().collect::<Vec<_>>();
        session.show("HeartbeatResponse", &answer, |style| list(style, &listed)).await?;
        let Some(every) = every else { return Ok(()) };
        let pause = std::time::Duration::try_from(every)
            .map_err(|_| Failure::Usage("--every: a negative time is no pause".to_owned()))?;
        tokio::time::sleep(pause.max(std::time::Duration::from_millis(100))).await;
    }
}

/// Pmin and what it is made of.
pub(crate) fn minimum(style: &Style, answer: &v1::GetMinimumPowerResponse) -> String {
    let further = answer.devices.saturating_sub(1);
    let mut text = format!(
        "Pmin is {}: {} and {further} times {} % of 4.20 kW.\n",
        words::watts(answer.watts),
        words::watts(answer.base_watts),
        answer.simultaneity_percent,
    );
    if answer.devices == 0 {
        "Pmin is 0 W: there is no controllable device in the sense of EnWG §14a.\n".clone_into(&mut text);
    }
    let row = |device: &v1::CountedDevice| {
        let counts =
            if device.outside.is_empty() { "yes".to_owned() } else { format!("no: {}", device.outside) };
        vec![words::text(&device.name), device.kind.clone(), words::watts(device.watts), counts]
    };
    let rows: Vec<_> = answer.counted.iter().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(style, &["DEVICE", "KIND", "POWER", "COUNTS"], rows));
    }
    text
}

/// The state in words.
const fn state(state: v1::SourceState) -> &'static str {
    match state {
        v1::SourceState::Unspecified => "unknown",
        v1::SourceState::Init => "not heard yet: failsafe",
        v1::SourceState::UnlimitedControlled => "heard, no limit",
        v1::SourceState::Limited => "limited",
        v1::SourceState::Failsafe => "silent: failsafe",
        v1::SourceState::UnlimitedAutonomous => "gone, the site is on its own",
    }
}

/// Who must be heard from, one per line.
pub(crate) fn list(style: &Style, sources: &[v1::GridSource]) -> String {
    if sources.is_empty() {
        return "No heartbeat is expected of anybody.\n".to_owned();
    }
    let row = |source: &v1::GridSource| {
        vec![
            words::text(&source.issuer),
            words::text(&source.node),
            state(source.state()).to_owned(),
            style.time(source.since.as_ref()),
            style.time(source.heard_at.as_ref()),
            format!("{} s", source.timeout_seconds),
            words::watts(source.failsafe_watts),
        ]
    };
    let headings = ["SOURCE", "NODE", "STATE", "SINCE", "HEARD", "WITHIN", "FAILSAFE"];
    table(style, &headings, sources.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmin_and_sources_are_explained() {
        let device = |name: &str, kind: &str, watts, outside: &str| v1::CountedDevice {
            name: name.into(),
            kind: kind.into(),
            watts,
            outside: outside.into(),
        };
        let answer = v1::GetMinimumPowerResponse {
            watts: 7_560,
            devices: 2,
            simultaneity_percent: 80,
            base_watts: 4_200,
            counted: vec![
                device("left", "charge point", 22_080, ""),
                device("street", "charge point", 22_080, "is open to the public"),
                device("pump", "heat pumps", 9_000, ""),
            ],
        };
        let source = v1::GridSource {
            issuer: "cert:dso".into(),
            node: "grid".into(),
            state: v1::SourceState::Failsafe.into(),
            since: Style::ago(60),
            heard_at: Style::ago(180),
            timeout_seconds: 120,
            failsafe_watts: 4_200,
            failsafe_seconds: 7_200,
        };
        let style = Style::fixed();
        let nothing = v1::GetMinimumPowerResponse::default();
        let texts =
            [minimum(&style, &answer), minimum(&style, &nothing), list(&style, &[source]), list(&style, &[])];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
