//! What the demo shows: lines of the story, and on a terminal a live picture below them.
//!
//! In: lines, and the lab to draw. Out: plain lines, or lines and a picture that is drawn over itself. Invariant:
//! without a terminal not one escape sequence leaves.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::Mutex,
    time::Duration,
};

use ladewart_lab::{log::lock, site::Lab};
use ladewart_proto::v1::{Site, UplinkState};
use tokio::time::Instant;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
/// What is too long for the terminal is cut off: the picture has as many lines as it seems.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Where the demo writes.
pub(crate) struct Screen {
    terminal: bool,
    began: Instant,
    drawn: Mutex<Vec<String>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), began: Instant::now(), drawn: Mutex::default() }
    }

    /// Whether somebody looks on.
    pub(crate) fn terminal(&self) -> bool {
        self.terminal
    }

    /// A heading of the story.
    pub(crate) fn step(&self, text: &str) -> anyhow::Result<()> {
        let line = if self.terminal { format!("{BOLD}{text}{PLAIN}") } else { text.to_owned() };
        self.line(&format!("\n{:6.1} s  {line}", self.began.elapsed().as_secs_f32()))
    }

    /// Something that came true.
    pub(crate) fn fact(&self, text: &str) -> anyhow::Result<()> {
        self.line(&format!("          {text}"))
    }

    /// A line above the picture.
    pub(crate) fn line(&self, text: &str) -> anyhow::Result<()> {
        let drawn = lock(&self.drawn);
        let mut out = String::new();
        self.erase(&mut out, drawn.len());
        let _ = writeln!(out, "{text}");
        for line in &*drawn {
            let _ = writeln!(out, "{CUT}{line}{WRAP}");
        }
        put(&out)
    }

    /// The picture is not drawn any more; it stays where it is not.
    pub(crate) fn close(&self) -> anyhow::Result<()> {
        let mut drawn = lock(&self.drawn);
        let mut out = String::new();
        self.erase(&mut out, drawn.len());
        drawn.clear();
        put(&out)
    }

    fn erase(&self, out: &mut String, lines: usize) {
        if self.terminal && lines > 0 {
            let _ = write!(out, "\x1b[{lines}A\x1b[J");
        }
    }

    /// Draws the lab again and again; on a pipe it only waits. Ends with an error alone: when nobody reads.
    pub(crate) async fn draw(&self, lab: &Lab) -> anyhow::Result<std::convert::Infallible> {
        if !self.terminal {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            let site = lab.operator.site().await.ok();
            let lines = picture(lab, site.as_ref());
            let mut drawn = lock(&self.drawn);
            let mut out = String::new();
            // Over the old picture, line by line: no flicker.
            if !drawn.is_empty() {
                let _ = write!(out, "\x1b[{}A", drawn.len());
            }
            for line in &lines {
                let _ = writeln!(out, "{CUT}{line}\x1b[K{WRAP}");
            }
            *drawn = lines;
            put(&out)?;
        }
    }
}

fn put(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn picture(lab: &Lab, site: Option<&Site>) -> Vec<String> {
    let fuse = f64::from(lab.plan.fuse);
    let mut lines = vec![format!("{DIM}{}{PLAIN}", "─".repeat(78))];
    let phases: Vec<_> = lab
        .connection
        .currents()
        .iter()
        .enumerate()
        .map(|(i, amps)| format!("L{} {} {amps:4.1} A", i + 1, bar(*amps, fuse)))
        .collect();
    lines.push(format!("  {}  of {fuse} A", phases.join("  ")));
    let limit = site.and_then(|s| s.nodes.first()).and_then(|n| n.power_limit_watts);
    let limit = limit.map_or("none".to_owned(), |w| format!("{:.1} kW", w as f64 / 1000.0));
    let uplink = site.and_then(|s| s.uplink.as_ref());
    let uplink = match uplink.map(|u| (u.state(), u.backend_connections)) {
        Some((UplinkState::Up, n)) => format!("up, {n} EVSEs at the backend"),
        Some((UplinkState::Down, _)) => "down".to_owned(),
        _ => "—".to_owned(),
    };
    let cars = lab.connection.charging_watts() / 1000.0;
    lines.push(format!("  cars {cars:5.2} kW   grid limit {limit}   uplink {uplink}"));
    for evse in &lab.evses {
        let state = evse.state();
        let view = site.and_then(|s| s.evses.iter().find(|e| e.identity == evse.identity()));
        let queued = view.map_or(0, |e| e.queued_messages);
        let reason = view.and_then(|e| e.setpoint.as_ref()).map_or("", |s| s.reason.as_str());
        let queued = if queued > 0 { format!("  {queued} wait") } else { String::new() };
        let text = format!(
            "  {:<8} {:<13} {:4.1} of {:4.1} A {:5.2} kW{queued}  {reason}",
            evse.identity(),
            state.status,
            state.currents[0],
            state.limit,
            state.watts / 1000.0
        );
        lines.push(text);
    }
    lines
}

fn bar(amps: f64, fuse: f64) -> String {
    let full = (0..10).filter(|i| f64::from(*i) < (amps / fuse * 10.0).round()).count();
    format!("{}{}", "█".repeat(full), "░".repeat(10 - full))
}
