//! `ladewartctl device`, `ladewartctl site` and `ladewartctl relay`: for who puts a site into operation.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ladewart_proto::v1::{self, device_service_client::DeviceServiceClient};

use crate::{failure::Failure, json, quantity, session::Session, words};

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Asks every unit of a bus which device it is.
    Scan(Scan),
    /// Reads a meter or a wallbox, past the site.
    Read(Read),
    /// Holds a wallbox at a lower current for a while, and shows what it reads and draws.
    TestSetpoint(TestSetpoint),
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Name of the [[bus]], or host:port of a Modbus TCP server of the configuration.
    bus: String,
    /// First and last unit.
    #[arg(long, default_value = "1-247", value_parser = range)]
    units: (u32, u32),
}

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// Name of the meter or EVSE.
    id: String,
    /// Again every second, until interrupted.
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TestSetpoint {
    /// Name of the EVSE.
    evse: String,
    /// Current per phase, e.g. "8 A"; nothing is raised above what the site grants.
    #[arg(value_parser = quantity::milliamps)]
    current: u32,
    /// How many seconds to hold it.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Checks everything that an installer answers for, as a page to sign.
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Ends the lock-out of a relay whose welded contactor was replaced.
    Clear {
        /// Name of the relay.
        relay: String,
    },
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let parsed =
        text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match parsed {
        Some((first, last)) if (1..=255).contains(&first) && first <= last && last <= 255 => {
            Ok((first, last))
        }
        _ => Err("write first-last, e.g. 1-32".to_owned()),
    }
}

impl Device {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Scan(scan) => scan.run(session).await,
            Self::Read(read) => read.run(session).await,
            Self::TestSetpoint(test) => test.run(session).await,
        }
    }
}

impl Scan {
    async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = DeviceServiceClient::new(session.channel().await?);
        let (first, last) = self.units;
        let request = v1::ScanBusRequest { bus: self.bus, first, last };
        let mut answers = session.call(client.scan_bus(request)).await?;
        let as_json = session.json_or(false);
        // On the standard error, and only on a terminal.
        let bar = ProgressBar::new(u64::from(last - first + 1));
        if let Ok(style) = ProgressStyle::with_template("{bar:40} unit {pos} of {len}  {msg}") {
            bar.set_style(style);
        }
        let mut found = 0_u32;
        while let Some(answer) = answers.message().await? {
            bar.inc(1);
            if !answer.answers {
                continue;
            }
            found += 1;
            let text = if as_json { json::line("ScanBusResponse", &answer)? } else { line(&answer) };
            bar.suspend(|| ());
            session.output.line(&text).await?;
        }
        bar.finish_and_clear();
        if found == 0 && !as_json {
            let nobody =
                "Nobody answers. Look at A and B, the termination, speed and parity, and the units' numbers.";
            session.output.line(nobody).await?;
        }
        Ok(())
    }
}

fn line(answer: &v1::ScanBusResponse) -> String {
    let what = match &answer.definitions[..] {
        [] => "answers, no definition fits".to_owned(),
        names => names.iter().map(|n| words::clean(n)).collect::<Vec<_>>().join(" or "),
    };
    format!("{:>3}  {what}", answer.unit)
}

impl Read {
    async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = DeviceServiceClient::new(session.channel().await?);
        let request = v1::ReadDeviceRequest { id: self.id, interval_ms: 0 };
        let mut answers = session.call(client.read_device(request)).await?;
        while let Some(answer) = answers.message().await? {
            if session.json_or(false) {
                session.output.line(&json::line("ReadDeviceResponse", &answer)?).await?;
            } else {
                session.output.line(&values(&answer)).await?;
            }
            if !self.watch {
                return if answer.problem.is_empty() {
                    Ok(())
                } else {
                    Err(Failure::Wrong(words::clean(&answer.problem)))
                };
            }
        }
        Ok(())
    }
}

fn values(answer: &v1::ReadDeviceResponse) -> String {
    if !answer.problem.is_empty() {
        return format!("no values: {}", words::clean(&answer.problem));
    }
    let one = |v: &v1::DeviceValue| {
        if v.problem.is_empty() {
            format!("{:<12} {:>14.3} {}", words::clean(&v.quantity), v.value, words::clean(&v.unit))
        } else {
            format!("{:<12} {:>14} {}", words::clean(&v.quantity), "-", words::clean(&v.problem))
        }
    };
    let mut lines: Vec<String> = answer.values.iter().map(one).collect();
    lines.push(format!("answered in {} ms\n", answer.took_ms));
    lines.join("\n")
}

impl TestSetpoint {
    async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut client = DeviceServiceClient::new(session.channel().await?);
        let request = v1::TestSetpointRequest { evse: self.evse, milliamps: self.current };
        let mut answers = session.call(client.test_setpoint(request)).await?;
        let until = tokio::time::sleep(Duration::from_secs(self.seconds.into()));
        tokio::pin!(until);
        let mut last = None;
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer?,
                () = &mut until => break,
            };
            let Some(answer) = answer else { break };
            let text = if session.json_or(false) {
                json::line("TestSetpointResponse", &answer)?
            } else {
                test(&answer)
            };
            session.output.line(&text).await?;
            last = Some(answer);
        }
        match last {
            Some(answer) if !answer.problem.is_empty() => Err(Failure::Wrong(words::clean(&answer.problem))),
            Some(answer) if answer.read_milliamps.is_some_and(|read| read > answer.wanted_milliamps) => Err(
                Failure::Wrong("the register reads more than was written; look at the definition".to_owned()),
            ),
            Some(_) => Ok(()),
            None => Err(Failure::Wrong("nothing was heard of the box".to_owned())),
        }
    }
}

fn amps(milliamps: u32) -> String {
    words::amps(milliamps.into())
}

fn test(answer: &v1::TestSetpointResponse) -> String {
    let read = answer
        .read_milliamps
        .map_or_else(|| "cannot be read back".to_owned(), |r| format!("reads {}", amps(r)));
    let draw: Vec<String> = answer.draw_milliamps.iter().map(|i| amps(*i)).collect();
    let draw =
        if draw.is_empty() { "no measurement".to_owned() } else { format!("draws {}", draw.join(" / ")) };
    format!("wanted {}  {read}  {draw}", amps(answer.wanted_milliamps))
}

impl Site {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self::Check = self;
        let mut client = DeviceServiceClient::new(session.channel().await?);
        let answer = session.call(client.check_site(v1::CheckSiteRequest {})).await?;
        session.show("CheckSiteResponse", &answer, |style| page(style, &answer)).await?;
        match answer.checks.iter().filter(|c| !c.ok).count() {
            0 => Ok(()),
            n => Err(Failure::Wrong(format!("{n} of {} checks are open", answer.checks.len()))),
        }
    }
}

/// Columns of a page that is printed.
const WIDTH: usize = 80;

/// One page, narrow enough to be printed: what was found, what is open, and where to sign.
fn page(style: &words::Style, answer: &v1::CheckSiteResponse) -> String {
    let open = answer.checks.iter().filter(|c| !c.ok).count();
    let at = style.now.to_zoned(style.zone.clone()).strftime("%Y-%m-%d %H:%M %Z");
    let mut lines = vec![
        format!("Putting into operation: {}", words::clean(&answer.site)),
        format!("Checked {at} with ladewartctl {}", env!("CARGO_PKG_VERSION")),
        String::new(),
    ];
    for check in &answer.checks {
        let mark = if check.ok { "[ ok ]" } else { "[OPEN]" };
        lines.extend(wrapped(&format!("{mark} "), &words::clean(&check.what)));
        lines.extend(wrapped("         ", &words::text(&check.found)));
        if !check.advice.is_empty() {
            lines.extend(wrapped("         To do: ", &words::clean(&check.advice)));
        }
    }
    lines.push(String::new());
    lines.push(match open {
        0 => format!("All {} checks are ok.", answer.checks.len()),
        n => format!("{n} of {} checks are open: not ready to be handed over.", answer.checks.len()),
    });
    for what in ["Place, date", "Installer", "Signature"] {
        lines.push(format!("\n{what:<12} {}", "_".repeat(50)));
    }
    lines.join("\n") + "\n"
}

/// The text behind its first words, in lines that fit the page.
fn wrapped(first: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(first.chars().count());
    let (mut lines, mut line, mut empty) = (Vec::new(), first.to_owned(), true);
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

impl Relay {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let Self::Clear { relay } = self;
        let mut client = DeviceServiceClient::new(session.channel().await?);
        let answer = session.call(client.clear_relay(v1::ClearRelayRequest { relay: relay.clone() })).await?;
        let said = format!("The relay {} may be energised again.\n", words::clean(&relay));
        session.show("ClearRelayResponse", &answer, |_| said).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_was_found() {
        let found = |definitions: &[&str]| v1::ScanBusResponse {
            unit: 7,
            answers: true,
            definitions: definitions.iter().map(|d| (*d).to_owned()).collect(),
        };
        assert_eq!(
            line(&found(&["eastron-sdm72", "eastron-sdm630"])),
            "  7  eastron-sdm72 or eastron-sdm630"
        );
        assert_eq!(line(&found(&[])), "  7  answers, no definition fits");
        let answer = v1::TestSetpointResponse {
            wanted_milliamps: 8000,
            read_milliamps: Some(8000),
            draw_milliamps: vec![7900, 0, 0],
            problem: String::new(),
        };
        assert_eq!(test(&answer), "wanted 8.0 A  reads 8.0 A  draws 7.9 A / 0.0 A / 0.0 A");
        assert_eq!(range("3-9"), Ok((3, 9)));
        assert!(range("9-3").is_err() && range("0-3").is_err() && range("x").is_err());
    }

    #[test]
    fn the_page_has_every_check_and_a_line_to_sign() {
        let check = |ok: bool, advice: &str| v1::SiteCheck {
            what: "meter grid".into(),
            ok,
            found: "answers\u{1b}[2J".into(),
            advice: advice.into(),
        };
        let answer = v1::CheckSiteResponse {
            site: "Hof 3".into(),
            checks: vec![check(true, ""), check(false, "look at its wiring")],
        };
        let mut long = answer.clone();
        long.checks[0].found = "draws 16.0 A on L1, 16.0 A on L2 and so says the meter ".repeat(5);
        let lines = page(&words::Style::fixed(), &long);
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH), "{lines}");
        let words: Vec<&str> = lines.split_whitespace().collect();
        assert_eq!(words.join(" ").matches("so says the meter").count(), 5, "{lines}");
        let page = page(&words::Style::fixed(), &answer);
        assert!(page.contains("Hof 3") && page.contains("[OPEN]") && page.contains("Signature"), "{page}");
        assert!(page.contains("To do: look at its wiring"), "{page}");
        assert!(page.contains("1 of 2 checks are open"), "{page}");
        assert!(!page.contains('\u{1b}'));
    }
}
