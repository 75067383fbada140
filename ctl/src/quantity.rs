//! Powers, durations and points in time as people write them.

use jiff::{
    SignedDuration, Span, SpanRelativeTo, Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};

/// `"10000"`, `"10 kW"`, `"4.2kW"` → watts, exactly.
pub(crate) fn watts(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a power; write it like 10000, \"4200 W\" or \"10 kW\"");
    let trimmed = text.trim();
    if trimmed.starts_with('-') {
        return Err(format!("{text:?} is negative; a limit is 0 or more"));
    }
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
    let digits = match unit {
        "" | "W" => 0,
        "kW" => 3,
        "MW" => 6,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction_digits = fraction.trim_end_matches('0');
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err(wrong());
    }
    if fraction_digits.len() > digits {
        return Err(format!("{text:?} is not a whole number of watts"));
    }
    format!("{whole}{fraction_digits:0<digits$}").parse().map_err(|_| wrong())
}

/// `"8"`, `"8 A"`, `"8.5A"`, `"8500 mA"` → milliamperes, exactly.
pub(crate) fn milliamps(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a current; write it like \"8 A\"");
    let trimmed = text.trim();
    let (number, milli) = match trimmed.strip_suffix("mA") {
        Some(number) => (number.trim(), true),
        None => (trimmed.strip_suffix('A').unwrap_or(trimmed).trim(), false),
    };
    if milli {
        return number.parse().map_err(|_| wrong());
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 3 {
        return Err(wrong());
    }
    format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())
}

/// `"30min"`, `"1h 30m"`, `"90 s"`, `"2d"`; more than nothing.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 90s, 30min or \"1h 30min\"");
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if duration.is_positive() { Ok(duration) } else { Err(wrong()) }
}

/// A point in time that may need the present and the time zone to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// With an offset.
    Exact(Timestamp),
    /// Date and time of the local calendar.
    Local(DateTime),
    /// The next time the local clock shows this.
    Next(Time),
}

/// `"2026-11-23T18:00:00+01:00"`, `"2026-11-23 18:00"`, `"18:00"`.
pub(crate) fn when(text: &str) -> Result<When, String> {
    let text = text.trim();
    if let Ok(exact) = text.parse() {
        return Ok(When::Exact(exact));
    }
    // A date alone would be midnight, which nobody means who asks for "until Friday".
    if text.contains(':') {
        let clock = text.len() <= "18:00:00".len();
        if let Some(time) = text.parse().ok().filter(|_| clock) {
            return Ok(When::Next(time));
        }
        if let Ok(local) = text.parse() {
            return Ok(When::Local(local));
        }
    }
    Err(format!(
        "{text:?} is not a time; write it like 18:00, \"2026-11-23 18:00\" or 2026-11-23T18:00:00+01:00"
    ))
}

impl When {
    /// The point in time.
    pub(crate) fn resolve(self, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
        let wrong = |error: jiff::Error| format!("this time cannot be used: {error}");
        match self {
            Self::Exact(exact) => Ok(exact),
            Self::Local(local) => Ok(local.to_zoned(zone.clone()).map_err(wrong)?.timestamp()),
            Self::Next(time) => {
                let today = now.to_zoned(zone.clone()).date();
                let next = today.to_datetime(time).to_zoned(zone.clone()).map_err(wrong)?;
                if next.timestamp() > now {
                    return Ok(next.timestamp());
                }
                let tomorrow = today.tomorrow().map_err(wrong)?;
                Ok(tomorrow.to_datetime(time).to_zoned(zone.clone()).map_err(wrong)?.timestamp())
            }
        }
    }
}

/// As the interface has it.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
    let seconds = (time.as_nanosecond() - nanos) / 1_000_000_000;
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or_default(),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_read_exactly() {
        for (text, expected) in [
            ("10000", 10_000),
            ("0", 0),
            ("10 kW", 10_000),
            ("10kW", 10_000),
            ("4.2 kW", 4200),
            ("4.200 kW", 4200),
            ("4.20000 kW", 4200),
            ("0.001 kW", 1),
            ("4200 W", 4200),
            ("1.5 MW", 1_500_000),
            (" 7 W ", 7),
        ] {
            assert_eq!(watts(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "kW",
            "10 kw",
            "10 KW",
            "10 A",
            "4,2 kW",
            "1.5 W",
            "4.2",
            "4.2001 kW",
            "1e3",
            ".5 kW",
            "5. kW",
            "1.2.3 kW",
            "-1",
            "-1 kW",
            "9999999999999999999",
            "9999999999999999 MW",
            "10 kW 5",
            "٣ kW",
        ] {
            assert!(watts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("90s", 90), ("30min", 1800), ("1h 30min", 5400), ("2 h", 7200), ("1d", 86_400), ("PT5M", 300)]
        {
            assert_eq!(duration(text).map(|d| d.as_secs()), Ok(seconds), "{text}");
        }
        for bad in ["", "30", "-5min", "0s", "1 month", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_in_local_time() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-23T18:00:00+01:00", "2026-11-23T17:00:00Z"),
            ("2026-11-23T18:00:00Z", "2026-11-23T18:00:00Z"),
            ("2026-11-23 18:00", "2026-11-23T17:00:00Z"),
            ("2026-07-01T18:00", "2026-07-01T16:00:00Z"),
            ("18:00", "2026-11-23T17:00:00Z"),
            ("13:00", "2026-11-24T12:00:00Z"),
            ("06:30", "2026-11-24T05:30:00Z"),
        ] {
            let resolved = when(text).and_then(|when| when.resolve(now, &berlin));
            assert_eq!(resolved, Ok(expected.parse().unwrap()), "{text}");
        }
        for bad in ["", "now", "2026-11-23", "25:00", "18", "tomorrow 18:00"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_time_exists_also_when_the_clocks_change() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        // 02:30 does not exist on 2026-03-29.
        let now: Timestamp = "2026-03-28T20:00:00Z".parse().unwrap();
        let resolved = when("02:30").unwrap().resolve(now, &berlin).unwrap();
        assert_eq!(resolved, "2026-03-29T01:30:00Z".parse().unwrap());
    }

    #[test]
    fn currents_are_read_exactly() {
        for (text, expected) in
            [("8", 8000), ("8 A", 8000), ("8.5A", 8500), ("8500 mA", 8500), ("0.125 A", 125)]
        {
            assert_eq!(milliamps(text), Ok(expected), "{text}");
        }
        for wrong in ["", "A", "8.", ".5", "8.1234 A", "-1", "8 kA"] {
            assert!(milliamps(wrong).is_err(), "{wrong}");
        }
    }
}
