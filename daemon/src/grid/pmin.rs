//! The power that controllable devices are owed while they are limited (BNetzA BK6-22-300 Anlage 1 no. 4.5).
//!
//! In: the devices behind a node, as configured. Out: [`Minimum`], with what was counted. It is shown and recorded; a
//! limit below it is kept all the same (no. 4.6 leaves the dispute to people).
//!
//! ```text
//! Pmin = base + (n − 1) · GZF(n) · 4.2 kW
//! base = 4.2 kW, or with a heat-pump or cooling group above 11 kW the larger of 0.4 · ΣP of each group
//! ```

use crate::{
    config::{Config, DeviceKind},
    units::Watts,
};

/// A device above this counts (no. 2.4.1), and so much it is owed.
const UNIT: Watts = Watts(4_200);
/// A heat-pump or cooling group above this is owed a share of its own power.
const LARGE: Watts = Watts(11_000);

/// Percent of the unit that each further device is owed, for n devices in all (no. 4.5.2, "Gleichzeitigkeitsfaktor").
#[must_use]
pub const fn simultaneity(n: usize) -> u8 {
    match n {
        0 | 1 => 100,
        2 => 80,
        3 => 75,
        4 => 70,
        5 => 65,
        6 => 60,
        7 => 55,
        8 => 50,
        _ => 45,
    }
}

/// One device or group in the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name; of a group all names.
    pub name: String,
    /// `"charge point"`, `"heat pumps"`, `"cooling"`, `"storage"`.
    pub kind: &'static str,
    /// Rated power.
    pub power: Watts,
    /// Why it does not count; `None` if it does.
    pub outside: Option<&'static str>,
}

/// What the devices behind a node are owed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Minimum {
    /// Pmin; 0 without a controllable device.
    pub watts: Watts,
    /// Devices and groups that count.
    pub devices: usize,
    /// The factor used, in percent.
    pub simultaneity: u8,
    /// The part of the first device or the large group.
    pub base: Watts,
    /// Everything that was looked at.
    pub counted: Vec<Counted>,
}

/// The minimum from what was counted.
#[must_use]
pub fn minimum(counted: Vec<Counted>) -> Minimum {
    let counts = |c: &&Counted| c.outside.is_none();
    let devices = counted.iter().filter(counts).count();
    let simultaneity = simultaneity(devices);
    let group = |kind| counted.iter().filter(|c| c.kind == kind).map(|c| c.power).sum::<Watts>();
    let (heat, cold) = (group(HEAT), group(COLD));
    let base = match devices {
        0 => Watts::ZERO,
        _ if heat.max(cold) > LARGE => Watts(heat.max(cold).0 * 2 / 5),
        _ => UNIT,
    };
    let further = i64::try_from(devices.saturating_sub(1)).unwrap_or(i64::MAX);
    let watts = base + Watts(further.saturating_mul(i64::from(simultaneity)).saturating_mul(UNIT.0) / 100);
    Minimum { watts, devices, simultaneity, base, counted }
}

const HEAT: &str = "heat pumps";
const COLD: &str = "cooling";

/// What counts behind a node.
#[must_use]
pub fn count(config: &Config, node: usize) -> Vec<Counted> {
    let behind = |at: usize| std::iter::successors(Some(at), |n| config.nodes[*n].parent).any(|n| n == node);
    let small = |power: Watts| (power <= UNIT).then_some("does not exceed 4.2 kW");
    let mut counted: Vec<Counted> = config
        .evses
        .iter()
        .filter(|e| behind(e.node))
        .map(|e| Counted {
            name: e.id.to_string(),
            kind: "charge point",
            power: e.rated(),
            outside: if e.public { Some("is open to the public") } else { small(e.rated()) },
        })
        .collect();
    for (kind, name) in [(DeviceKind::HeatPump, HEAT), (DeviceKind::Cooling, COLD)] {
        let group: Vec<_> = config.devices.iter().filter(|d| d.kind == kind && behind(d.node)).collect();
        if !group.is_empty() {
            let power = group.iter().map(|d| d.power).sum();
            let names: Vec<_> = group.iter().map(|d| d.id.as_str()).collect();
            counted.push(Counted { name: names.join(", "), kind: name, power, outside: small(power) });
        }
    }
    let storage = config.devices.iter().filter(|d| d.kind == DeviceKind::Storage && behind(d.node));
    counted.extend(storage.map(|d| Counted {
        name: d.id.to_string(),
        kind: "storage",
        power: d.power,
        outside: small(d.power),
    }));
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: &'static str, watts: i64) -> Counted {
        let outside = (watts <= 4_200).then_some("does not exceed 4.2 kW");
        Counted { name: "x".into(), kind, power: Watts(watts), outside }
    }

    fn boxes(n: usize) -> Vec<Counted> {
        vec![device("charge point", 11_040); n]
    }

    #[test]
    fn the_published_values_for_wallboxes() {
        let table = [
            (0, 0),
            (1, 4_200),
            (2, 7_560),
            (3, 10_500),
            (4, 13_020),
            (5, 15_120),
            (6, 16_800),
            (7, 18_060),
            (8, 18_900),
            (9, 19_320),
            (10, 21_210),
            (12, 24_990),
            (16, 32_550),
            (20, 40_110),
            (30, 59_010),
        ];
        for (n, watts) in table {
            assert_eq!(minimum(boxes(n)).watts, Watts(watts), "{n}");
        }
    }

    #[test]
    fn a_large_heat_pump_replaces_the_first_unit() {
        let with = |more: &[Counted]| minimum([boxes(4), more.to_vec()].concat());
        let large = with(&[device(HEAT, 14_000)]);
        assert_eq!((large.watts, large.base, large.devices), (Watts(16_520), Watts(5_600), 5));
        // At 11 kW it is one device as any other; the larger group counts, not the sum.
        assert_eq!(with(&[device(HEAT, 11_000)]).watts, Watts(15_120));
        assert_eq!(with(&[device(HEAT, 14_000), device(COLD, 20_000)]).base, Watts(8_000));
        assert_eq!(minimum(vec![device(HEAT, 14_000)]).watts, Watts(5_600));
    }

    #[test]
    fn what_does_not_exceed_the_unit_does_not_count() {
        let all = [boxes(2), vec![device("charge point", 4_200), device("storage", 3_000)]].concat();
        assert_eq!(minimum(all).watts, Watts(7_560));
        assert_eq!(minimum(vec![device("storage", 4_201)]).watts, Watts(4_200));
    }
}
