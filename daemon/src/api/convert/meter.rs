//! Meters.

use ladewart_proto::v1;

use super::{site::currents, timestamp};
use crate::{
    site::view::{MeterView, Quality},
    time::Now,
    units::Phase,
};

/// One meter. The age is counted by the monotonic clock, so that a jump of the wall clock does not make an old
/// reading young.
pub(in crate::api) fn meter(meter: &MeterView, now: Now) -> v1::Meter {
    let quality = match meter.quality {
        Quality::Good => v1::Quality::Good,
        Quality::Stale => v1::Quality::Stale,
        Quality::Lost => v1::Quality::Lost,
        Quality::Implausible => v1::Quality::Implausible,
    };
    let reading = meter.reading.as_ref();
    let age = |at: Now| u64::try_from(now.mono.since(at.mono).as_millis()).unwrap_or(u64::MAX);
    v1::Meter {
        id: meter.id.to_string(),
        device: meter.device.clone(),
        quality: quality.into(),
        age_milliseconds: reading.map(|reading| age(reading.at)),
        at: reading.map(|reading| timestamp(reading.at.wall)),
        currents: reading.map(|reading| currents(&reading.currents)),
        voltages: reading.map(|reading| v1::PhaseVoltages {
            l1_millivolts: reading.voltages[Phase::L1].0,
            l2_millivolts: reading.voltages[Phase::L2].0,
            l3_millivolts: reading.voltages[Phase::L3].0,
        }),
        power_watts: reading.map(|reading| reading.power.0),
        import_watthours: reading.and_then(|reading| reading.import).map(|wh| wh.0),
        export_watthours: reading.and_then(|reading| reading.export).map(|wh| wh.0),
        problem: meter.problem.clone(),
    }
}
