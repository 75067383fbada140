//! `ladewartctl version`.

use ladewart_proto::v1::{self, system_service_client::SystemServiceClient};

use crate::{
    failure::Failure,
    session::Session,
    words::{self, Style},
};

pub(crate) async fn run(session: &mut Session) -> Result<(), Failure> {
    // The own version is known also while nobody answers.
    if !session.json_or(false) {
        session.output.line(concat!("ladewartctl ", env!("CARGO_PKG_VERSION"))).await?;
    }
    let mut client = SystemServiceClient::new(session.channel().await?);
    let answer = session.call(client.get_version(v1::GetVersionRequest {})).await?;
    session.show("GetVersionResponse", &answer, |style| daemon(style, &answer)).await
}

fn daemon(style: &Style, answer: &v1::GetVersionResponse) -> String {
    format!(
        "ladewartd {} ({}), running since {}",
        words::text(&answer.version),
        words::text(&answer.api),
        style.time(answer.started.as_ref())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_has_a_line() {
        let answer = v1::GetVersionResponse {
            version: "0.1.0".into(),
            api: "ladewart.v1".into(),
            started: Style::ago(0),
        };
        let line = daemon(&Style::fixed(), &answer);
        assert_eq!(line, "ladewartd 0.1.0 (ladewart.v1), running since 2026-11-23 12:00:00 CET");
    }
}
