//! `ladewartctl watch`: the site, live.

use std::time::Duration;

use clap::Args;
use ladewart_proto::v1::{self, UplinkState, site_service_client::SiteServiceClient};

use crate::{evse, failure::Failure, json, quantity, session::Session, status, words};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Least time between two pictures, e.g. 1s.
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "500ms")]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = quantity::duration(text)?;
    Duration::try_from(duration).map_err(|_| format!("{text:?} is not a duration"))
}

/// Clears the screen once.
const CLEAR: &str = "\u{1b}[2J";
/// To the upper left corner.
const HOME: &str = "\u{1b}[H";
/// Clears the rest of the line, and below the last one the rest of the screen.
const REST_OF_LINE: &str = "\u{1b}[K";
const REST_OF_SCREEN: &str = "\u{1b}[J";

impl Watch {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = SiteServiceClient::new(session.channel().await?);
        let min_interval_ms = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
        let mut pictures = session.call(client.watch_site(v1::WatchSiteRequest { min_interval_ms })).await?;
        let (json, redraw) = (session.json_or(false), session.output.terminal());
        if redraw && !json {
            session.output.write(CLEAR.as_bytes()).await?;
        }
        let mut last = String::new();
        while let Some(picture) = pictures.message().await? {
            let site = picture.site.unwrap_or_default();
            if json {
                session.output.line(&json::line("Site", &site)?).await?;
                continue;
            }
            let style = session.style();
            if redraw {
                session.output.write(screen(&status::whole(&style, &site)).as_bytes()).await?;
                continue;
            }
            let now = line(&site);
            if now != last {
                session.output.line(&format!("{} {now}", style.short(site.at.as_ref()))).await?;
                last = now;
            }
        }
        Ok(())
    }
}

/// Over the last picture, without flicker.
fn screen(text: &str) -> String {
    let lines = text.lines().fold(String::from(HOME), |screen, line| screen + line + REST_OF_LINE + "\n");
    lines + REST_OF_SCREEN
}

/// What changes, on one line; without times and small movements, so that it repeats itself while nothing happens.
fn line(site: &v1::Site) -> String {
    let mut parts = Vec::new();
    for node in &site.nodes {
        if let Some(watts) = node.power_limit_watts {
            parts.push(format!("{} limited to {}", words::text(&node.id), words::watts(watts)));
        }
    }
    for evse in &site.evses {
        let setpoint = match &evse.setpoint {
            Some(_) => format!(" {}", evse::setpoint(evse)),
            None => String::new(),
        };
        parts.push(format!("{} {}{setpoint}", words::text(&evse.id), evse::state(evse)));
    }
    for meter in site.meters.iter().filter(|meter| meter.quality() != v1::Quality::Good) {
        let quality = if meter.quality() == v1::Quality::Lost { "lost" } else { "stale" };
        parts.push(format!("meter {} {quality}", words::text(&meter.id)));
    }
    if let Some(uplink) = &site.uplink {
        parts.push(match uplink.state() {
            UplinkState::Up => "uplink up".to_owned(),
            UplinkState::Down => format!("uplink DOWN: {}", words::text(&uplink.last_error)),
            UplinkState::Idle | UplinkState::Unspecified => "uplink idle".to_owned(),
        });
    }
    let queued: u64 = site.evses.iter().map(|evse| evse.queued_messages).sum();
    if queued > 0 {
        parts.push(format!("{queued} messages wait for the backend"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Style;

    #[test]
    fn a_line_says_what_is_going_on() {
        insta::assert_snapshot!(line(&status::tests::sample()));
    }

    #[test]
    fn small_movements_make_no_new_line() {
        let before = status::tests::sample();
        let mut after = before.clone();
        after.at = Style::ago(-1);
        after.meters[0].power_watts = Some(1);
        after.evses[0].draw.as_mut().unwrap().power_watts = Some(7);
        assert_eq!(line(&before), line(&after));
        after.evses[0].setpoint.as_mut().unwrap().milliamps = 6000;
        assert_ne!(line(&before), line(&after));
    }

    #[test]
    fn a_redraw_clears_what_was_longer_before() {
        assert_eq!(screen("a\nb\n"), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
    }
}
