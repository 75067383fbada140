//! `ladewartctl explain`.

use clap::Subcommand;
use ladewart_proto::v1::{self, site_service_client::SiteServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    table::table,
    words::{self, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// Why a car gets what it gets, and what would have to change.
    Evse {
        /// The EVSE, as in `evse list`.
        id: String,
    },
}

impl Explain {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self::Evse { id } = self;
        let mut client = SiteServiceClient::new(session.channel().await?);
        let answer = session.call(client.explain_evse(v1::ExplainEvseRequest { evse: id })).await?;
        session.show("ExplainEvseResponse", &answer, |style| told(style, &answer)).await
    }
}

fn told(style: &Style, answer: &v1::ExplainEvseResponse) -> String {
    let granted = words::amps(answer.granted_milliamps.into());
    let head =
        format!("{} gets {granted} per phase: {}.", words::clean(&answer.evse), words::text(&answer.because));
    let row = |line: &v1::ExplanationLine| vec![words::text(&line.about), words::text(&line.says)];
    let lines = table(style, &["LOOKED AT", "SAYS"], answer.lines.iter().map(row).collect());
    let changes: Vec<_> = answer.changes.iter().map(|change| format!("- {}", words::clean(change))).collect();
    format!("{head}\n\n{lines}\nFor more:\n{}", changes.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_told_in_order() {
        let line = |about: &str, says: &str| v1::ExplanationLine { about: about.into(), says: says.into() };
        let answer = v1::ExplainEvseResponse {
            evse: "left".into(),
            granted_milliamps: 6000,
            because: "fuse main of 63.0 A".into(),
            lines: vec![
                line("vehicle", "it may take up to 32.0 A by itself"),
                line("node main", "fuse of 63.0 A"),
            ],
            changes: vec![
                "this must leave more room: fuse main of 63.0 A".into(),
                "or right must take less".into(),
            ],
        };
        insta::assert_snapshot!(told(&Style::fixed(), &answer));
    }
}
