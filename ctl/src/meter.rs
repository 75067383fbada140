//! `ladewartctl meter`.

use clap::Subcommand;
use ladewart_proto::v1::{self, Quality, meter_service_client::MeterServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Meter {
    /// Every configured meter with its last reading.
    List,
}

impl Meter {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self::List = self;
        let mut client = MeterServiceClient::new(session.channel().await?);
        let answer = session.call(client.list_meters(v1::ListMetersRequest {})).await?;
        session.show("ListMetersResponse", &answer, |style| list(style, &answer.meters)).await
    }
}

const fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Unspecified => "unknown",
        Quality::Good => "good",
        Quality::Stale => "stale: planned on the worst case",
        Quality::Lost => "lost: failsafe",
        Quality::Implausible => "implausible: planned on the worst case",
    }
}

fn or_nothing<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

/// What matters now: for `status`.
pub(crate) fn overview(style: &Style, meters: &[v1::Meter]) -> String {
    let row = |meter: &v1::Meter| {
        vec![
            words::text(&meter.id),
            quality(meter.quality()).to_owned(),
            or_nothing(meter.age_milliseconds, words::span),
            words::phases(meter.currents.as_ref()),
            or_nothing(meter.power_watts, words::watts),
            words::text(&meter.problem),
        ]
    };
    table(
        style,
        &["METER", "QUALITY", "AGE", "CURRENTS", "POWER", "PROBLEM"],
        meters.iter().map(row).collect(),
    )
}

/// Everything.
pub(crate) fn list(style: &Style, meters: &[v1::Meter]) -> String {
    if meters.is_empty() {
        return "This site has no meters.\n".to_owned();
    }
    let row = |meter: &v1::Meter| {
        vec![
            words::text(&meter.id),
            words::text(&meter.device),
            quality(meter.quality()).to_owned(),
            or_nothing(meter.age_milliseconds, words::span),
            words::phases(meter.currents.as_ref()),
            words::voltages(meter.voltages.as_ref()),
            or_nothing(meter.power_watts, words::watts),
            or_nothing(meter.import_watthours, words::watthours),
            or_nothing(meter.export_watthours, words::watthours),
            words::text(&meter.problem),
        ]
    };
    let headings =
        ["METER", "DEVICE", "QUALITY", "AGE", "CURRENTS", "VOLTAGES", "POWER", "IMPORT", "EXPORT", "PROBLEM"];
    table(style, &headings, meters.iter().map(row).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn samples() -> Vec<v1::Meter> {
        vec![
            v1::Meter {
                id: "main".into(),
                device: "eastron-sdm630".into(),
                quality: Quality::Good.into(),
                age_milliseconds: Some(430),
                at: Style::ago(0),
                currents: Some(v1::PhaseCurrents {
                    l1_milliamps: 31_240,
                    l2_milliamps: -2100,
                    l3_milliamps: 49,
                }),
                voltages: Some(v1::PhaseVoltages {
                    l1_millivolts: 229_870,
                    l2_millivolts: 231_000,
                    l3_millivolts: 230_450,
                }),
                power_watts: Some(6_707),
                import_watthours: Some(12_345_678),
                export_watthours: None,
                problem: String::new(),
            },
            v1::Meter {
                id: "pv".into(),
                device: "eastron-sdm630".into(),
                quality: Quality::Lost.into(),
                problem: "10.0.0.7:502 does not answer".into(),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn the_list_shows_each_meter_on_one_line() {
        insta::assert_snapshot!(list(&Style::fixed(), &samples()));
    }
}
