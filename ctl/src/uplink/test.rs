//! `ladewartctl uplink test` and `ladewartctl uplink trust`.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use ladewart_proto::v1::{self, UplinkStep, uplink_service_client::UplinkServiceClient};

use crate::{failure::Failure, json, quantity, session::Session, words};

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Name of the target as in `uplink status`; the backend without.
    #[arg(default_value = "", hide_default_value = true)]
    target: String,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// How long to wait for the gateway; an hour at most.
    #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration, default_value = "10min")]
    within: SignedDuration,
}

impl Test {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = UplinkServiceClient::new(session.channel().await?);
        let request = v1::TestUplinkRequest { target: self.target };
        let mut steps = session.call(client.test_uplink(request)).await?;
        let mut failed = None;
        // Each step has its own time; the daemon ends the test.
        while let Some(step) = steps.message().await? {
            let text =
                if session.json_or(false) { json::line("TestUplinkResponse", &step)? } else { line(&step) };
            session.output.line(&text).await?;
            if !step.ok {
                failed = Some(step);
            }
        }
        match failed {
            None => Ok(()),
            Some(step) => Err(Failure::Wrong(next(&step))),
        }
    }
}

fn name(step: UplinkStep) -> &'static str {
    match step {
        UplinkStep::Unspecified => "(unknown)",
        UplinkStep::Link => "link",
        UplinkStep::Address => "address",
        UplinkStep::Tcp => "TCP",
        UplinkStep::Tls => "TLS",
        UplinkStep::Proxy => "proxy",
        UplinkStep::Target => "target",
        UplinkStep::Application => "application",
    }
}

fn line(step: &v1::TestUplinkResponse) -> String {
    let verdict = if step.ok { "ok    " } else { "FAILED" };
    format!("{:<11}  {verdict}  {}", name(step.step()), words::clean(&step.detail))
}

/// What to do, as the program's last word.
fn next(step: &v1::TestUplinkResponse) -> String {
    format!("the way ends at the step \"{}\". {}", name(step.step()), words::clean(&step.advice))
}

impl Trust {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let within = Duration::try_from(self.within)
            .map_err(|_| Failure::Usage("--for: a time in the future would be right".to_owned()))?;
        let within = prost_types::Duration::try_from(within)
            .map_err(|_| Failure::Usage("--for: this is too long".to_owned()))?;
        let mut client = UplinkServiceClient::new(session.channel().await?);
        let request = v1::TrustGatewayRequest { within: Some(within) };
        let answer = session.call(client.trust_gateway(request)).await?;
        session
            .show("TrustGatewayResponse", &answer, |style| {
                format!(
                    "The certificate that the gateway shows next is taken on, until {}. Compare its fingerprint \
                     in `ladewartctl uplink status` with the gateway's papers.",
                    style.time(answer.until.as_ref())
                )
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_and_the_last_word_is_what_to_do() {
        let step = |step: UplinkStep, ok, detail: &str| v1::TestUplinkResponse {
            step: step.into(),
            ok,
            detail: detail.into(),
            advice: if ok { String::new() } else { "Ask the gateway administrator.".into() },
        };
        let good = step(UplinkStep::Link, true, "han0 is up");
        let bad = step(UplinkStep::Proxy, false, "proxy reply 02 not allowed\u{1b}[2J by ruleset");
        assert_eq!(line(&good), "link         ok      han0 is up");
        assert!(line(&bad).starts_with("proxy        FAILED  proxy reply 02"), "{}", line(&bad));
        assert!(!line(&bad).contains('\u{1b}'));
        assert_eq!(next(&bad), "the way ends at the step \"proxy\". Ask the gateway administrator.");
    }
}
