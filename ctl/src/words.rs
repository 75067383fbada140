//! Values as people read them.

use jiff::{Timestamp, tz::TimeZone};
use ladewart_proto::v1;

/// What a rendering needs to know besides the message.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// For times.
    pub(crate) zone: TimeZone,
    /// For ages.
    pub(crate) now: Timestamp,
    /// Whether tables may fit themselves to a terminal's width.
    pub(crate) terminal: bool,
}

/// What stands where nothing is.
pub(crate) const NOTHING: &str = "-";

/// Text from outside, on one line and without anything that steers a terminal.
pub(crate) fn clean(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

/// The same, with a mark where there is none.
pub(crate) fn text(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { clean(text) }
}

/// Two digits per byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 3339 in UTC; nothing without a time.
pub(crate) fn utc(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(instant).map(|at| at.to_string()).unwrap_or_default()
}

fn scaled(value: i64, digits: u32) -> String {
    let scale = 10_u64.pow(digits);
    let (whole, part) = (value.unsigned_abs() / scale, value.unsigned_abs() % scale);
    let sign = if value < 0 { "-" } else { "" };
    let width = usize::try_from(digits).unwrap_or(0);
    let part = format!("{part:0width$}");
    match part.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

/// `"4.14 kW"`, `"230 W"`: exact.
pub(crate) fn watts(watts: i64) -> String {
    if watts.unsigned_abs() < 1000 { format!("{watts} W") } else { format!("{} kW", scaled(watts, 3)) }
}

/// `"12.345 kWh"`.
pub(crate) fn watthours(watthours: i64) -> String {
    if watthours.unsigned_abs() < 1000 {
        format!("{watthours} Wh")
    } else {
        format!("{} kWh", scaled(watthours, 3))
    }
}

fn tenths(thousandths: i64) -> String {
    let rounded = (i128::from(thousandths).unsigned_abs() + 50) / 100;
    let sign = if thousandths < 0 && rounded > 0 { "-" } else { "" };
    format!("{sign}{}.{}", rounded / 10, rounded % 10)
}

/// `"16.0 A"`, to a tenth.
pub(crate) fn amps(milliamps: i64) -> String {
    format!("{} A", tenths(milliamps))
}

/// `"16.0 / 16.0 / 0.0 A"`.
pub(crate) fn phases(currents: Option<&v1::PhaseCurrents>) -> String {
    currents.map_or_else(
        || NOTHING.to_owned(),
        |c| format!("{} / {} / {} A", tenths(c.l1_milliamps), tenths(c.l2_milliamps), tenths(c.l3_milliamps)),
    )
}

/// `"230.1 / 229.8 / 231.0 V"`.
pub(crate) fn voltages(voltages: Option<&v1::PhaseVoltages>) -> String {
    voltages.map_or_else(
        || NOTHING.to_owned(),
        |v| {
            format!(
                "{} / {} / {} V",
                tenths(v.l1_millivolts),
                tenths(v.l2_millivolts),
                tenths(v.l3_millivolts)
            )
        },
    )
}

/// How long, to two places: `"0.4 s"`, `"12 s"`, `"3 min 20 s"`, `"2 h 5 min"`, `"3 d 1 h"`.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let pair = |big: u64, big_unit, small: u64, small_unit| match small {
        0 => format!("{big} {big_unit}"),
        _ => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0..10 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn instant(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

impl Style {
    /// `"2026-11-23 12:00:00 CET"`.
    pub(crate) fn time(&self, time: Option<&prost_types::Timestamp>) -> String {
        self.formatted(time, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// `"12:00:00"`, for lines that follow one another.
    pub(crate) fn short(&self, time: Option<&prost_types::Timestamp>) -> String {
        self.formatted(time, "%H:%M:%S")
    }

    fn formatted(&self, time: Option<&prost_types::Timestamp>, form: &str) -> String {
        let Some(time) = time else {
            return NOTHING.to_owned();
        };
        match instant(time) {
            Some(instant) => instant.to_zoned(self.zone.clone()).strftime(form).to_string(),
            None => format!("{} s", time.seconds),
        }
    }

    /// How long ago it was; nothing for what lies ahead.
    pub(crate) fn since(&self, time: Option<&prost_types::Timestamp>) -> Option<String> {
        let past = self.now.as_millisecond() - instant(time?)?.as_millisecond();
        u64::try_from(past).ok().map(span)
    }

    /// How long it takes until then; nothing for what is past.
    pub(crate) fn until(&self, time: Option<&prost_types::Timestamp>) -> Option<String> {
        let ahead = instant(time?)?.as_millisecond() - self.now.as_millisecond();
        u64::try_from(ahead).ok().map(span)
    }
}

#[cfg(test)]
impl Style {
    /// Noon in Berlin on a winter's day, without a terminal.
    pub(crate) fn fixed() -> Self {
        Self {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            now: "2026-11-23T11:00:00Z".parse().unwrap(),
            terminal: false,
        }
    }

    /// Seconds before (or after) that noon.
    #[expect(clippy::unnecessary_wraps, reason = "messages hold optional times")]
    pub(crate) fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds: 1_795_431_600 - seconds, nanos: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_well() {
        assert_eq!(watts(10_000), "10 kW");
        assert_eq!(watts(4140), "4.14 kW");
        assert_eq!(watts(-12_345), "-12.345 kW");
        assert_eq!(watts(0), "0 W");
        assert_eq!(watts(i64::MIN), "-9223372036854775.808 kW");
        assert_eq!(watthours(1200), "1.2 kWh");
        assert_eq!(amps(15_960), "16.0 A");
        assert_eq!(amps(-40), "0.0 A");
        assert_eq!(amps(-1000), "-1.0 A");
        assert_eq!(amps(i64::MIN), "-9223372036854775.8 A");
        assert_eq!(
            [span(440), span(9999), span(61_000), span(7_500_000), span(90_000_000)],
            ["0.4 s", "9.9 s", "1 min 1 s", "2 h 5 min", "1 d 1 h"]
        );
    }

    #[test]
    fn times_are_local_and_odd_ones_do_not_panic() {
        let style = Style::fixed();
        assert_eq!(style.time(Style::ago(0).as_ref()), "2026-11-23 12:00:00 CET");
        assert_eq!(style.since(Style::ago(61).as_ref()), Some("1 min 1 s".into()));
        assert_eq!(style.since(Style::ago(-61).as_ref()), None);
        assert_eq!(style.until(Style::ago(-61).as_ref()), Some("1 min 1 s".into()));
        assert_eq!(style.time(None), "-");
        let odd = prost_types::Timestamp { seconds: i64::MAX, nanos: -5 };
        assert_eq!(style.time(Some(&odd)), format!("{} s", i64::MAX));
        assert_eq!(style.since(Some(&odd)), None);
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        assert_eq!(clean("W1\u{1b}[2J\n\r\u{9b}x\u{202e}"), "W1\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}x\u{fffd}");
        assert_eq!(clean("Schütz Ü 11 kW"), "Schütz Ü 11 kW");
    }
}
