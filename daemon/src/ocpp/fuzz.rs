//! The gateway's readers and its route, called with any bytes. For the fuzz targets; no part of the interface.

use std::time::Duration;

use super::{
    Version, deflate,
    frame::{self, Frame, Number},
    queue::Saved,
    route::{BackendRules, Out, Route, Rules},
};
use crate::{
    plan::Setpoint,
    time::{Mono, Now, Wall},
    units::Milliamps,
};

const START: Wall = Wall(1_800_000_000_000);

/// The codec: a frame is looked into in every version, and changed where we change frames.
pub fn frame(bytes: &[u8]) {
    let unpacked = deflate::inflate(bytes.to_vec(), 1 << 16);
    assert!(unpacked.is_none_or(|u| u.len() <= (1 << 17)), "the limit holds");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(Frame::Call { payload, .. } | Frame::Answer { payload, .. }) = frame::peek(text) else {
        return;
    };
    if let Some(number) = Number::find(text, payload, &["transactionId"]) {
        let changed = number.put(text, 7);
        assert!(frame::peek(&changed).is_ok(), "a frame stays a frame");
    }
    if let Some(changed) = frame::with_member(text, "offline", "true") {
        assert!(frame::peek(&changed).is_ok(), "a frame stays a frame");
    }
    for version in Version::ALL {
        let _ =
            (version.boot(payload), version.card(payload), version.verdict(payload), version.state(payload));
        let _ = (version.states(payload), version.meter_values(payload), version.levels(payload));
        let _ = (version.clear_criteria(payload), version.composite_asked(payload));
        let _ = version.profile(payload, START);
    }
}

/// The routing state machine. Each line is a step: its first character says which, the rest is the frame.
pub fn route(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let version = match lines.next() {
        Some("2.0.1") => Version::V201,
        Some("2.1") => Version::V21,
        _ => Version::V16,
    };
    let rules = Rules {
        backend: Some(BackendRules {
            call_timeout: Duration::from_secs(30),
            attempts: 2,
            retry_interval: Duration::from_secs(60),
        }),
        own_timeout: Duration::from_secs(10),
        accept_unknown: true,
        local: false,
        users: std::sync::Arc::default(),
        rated: Milliamps::amps(32),
        phases: 3,
        merged: false,
        schemas: None,
        refuses: false,
    };
    let mut now = Now { mono: Mono::default(), wall: START };
    let mut route = Route::new(now.mono, rules, Saved { version, ..Saved::default() }, 1);
    for line in lines.take(200) {
        let mut rest = line.chars();
        let step = rest.next();
        let frame = rest.as_str().to_owned();
        match step {
            Some('S') => route.south_up(now, version),
            Some('s') => route.south_down(now),
            Some('N') => route.north_up(now, version),
            Some('n') => route.north_down(now),
            Some('>') => route.south_frame(now, frame),
            Some('<') => route.north_frame(now, frame),
            Some('w') => route.setpoint(now, Some(wish(&frame))),
            Some('t') => {
                now = now.plus(Duration::from_secs(frame.parse::<u64>().unwrap_or(1).min(100_000)));
            }
            _ => {}
        }
        settle(&mut route, now);
        // What is due is done, and is then no longer due.
        for _ in 0..1000 {
            match route.poll_timeout() {
                Some((at, _)) if at <= now.mono => route.timeout(now),
                _ => break,
            }
            settle(&mut route, now);
        }
        assert!(route.poll_timeout().is_none_or(|(at, _)| at > now.mono), "it wakes without end");
    }
}

fn wish(amps: &str) -> Setpoint {
    Setpoint {
        sequence: 1,
        limit: Milliamps::amps(amps.parse::<i64>().unwrap_or(16).clamp(0, 32)),
        failsafe: Milliamps::amps(6),
        lease: Duration::from_secs(60),
        one_phase: false,
        reason: String::new(),
    }
}

fn settle(route: &mut Route, now: Now) {
    while let Some(out) = route.output() {
        match out {
            Out::Store { ticket, .. } => route.stored(now, ticket, &Ok(())),
            Out::Tariff { ticket: Some(ticket), .. } => route.tariff_taken(now, ticket, &Ok(())),
            Out::South(text) | Out::North(text) => {
                // Whatever the other side sent: what leaves here is a frame.
                assert!(frame::peek(&text).is_ok(), "{text}");
            }
            _ => {}
        }
    }
}
