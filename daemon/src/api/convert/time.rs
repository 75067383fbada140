//! Wall-clock time.

use prost_types::Timestamp;
use tonic::Status;

use super::invalid;
use crate::time::Wall;

/// As `google.protobuf.Timestamp`.
pub(in crate::api) fn timestamp(wall: Wall) -> Timestamp {
    let milliseconds = i32::try_from(wall.0.rem_euclid(1000)).unwrap_or(0);
    Timestamp { seconds: wall.0.div_euclid(1000), nanos: milliseconds * 1_000_000 }
}

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: the range of `google.protobuf.Timestamp`.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// To the millisecond, rounded down.
pub(in crate::api) fn wall(field: &str, timestamp: Timestamp) -> Result<Wall, Status> {
    if !SECONDS.contains(&timestamp.seconds) {
        return Err(invalid(field, "is not between the years 1 and 9999"));
    }
    if !(0..1_000_000_000).contains(&timestamp.nanos) {
        return Err(invalid(
            field,
            format!("has {} nanoseconds; 0 to 999999999 would be right", timestamp.nanos),
        ));
    }
    Ok(Wall(timestamp.seconds * 1000 + i64::from(timestamp.nanos) / 1_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_come_back_as_they_went(seconds in SECONDS, milliseconds in 0..1000_i64) {
            let time = Wall(seconds * 1000 + milliseconds);
            prop_assert_eq!(wall("t", timestamp(time)).unwrap(), time);
        }

        #[test]
        fn no_timestamp_panics(seconds: i64, nanos: i32) {
            let valid = SECONDS.contains(&seconds) && (0..1_000_000_000).contains(&nanos);
            prop_assert_eq!(wall("t", Timestamp { seconds, nanos }).is_ok(), valid);
        }
    }
}
