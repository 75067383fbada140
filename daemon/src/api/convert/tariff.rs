//! Tariffs and variables.

use ladewart_proto::v1;
use tonic::Status;

use super::{invalid, time::wall, timestamp};
use crate::{
    ids::EvseId,
    tariff::{self, Announcement, Days, Level, Months, Offer, Slot, Stretch, TimeOfDay, Zone},
    time::Wall,
    units::Price,
    variable::{self, Variables},
};

fn required<T>(field: &str, value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

fn offer(field: &str, given: Option<v1::TariffOffer>) -> Result<Offer, Status> {
    let Some(given) = given else { return Ok(Offer::default()) };
    let level = match v1::TariffLevel::try_from(given.level) {
        Ok(v1::TariffLevel::Unspecified) => None,
        Ok(v1::TariffLevel::Low) => Some(Level::Low),
        Ok(v1::TariffLevel::Normal) => Some(Level::Normal),
        Ok(v1::TariffLevel::High) => Some(Level::High),
        Err(_) => return Err(invalid(&format!("{field}.level"), format!("{} is no level", given.level))),
    };
    Ok(Offer { price: given.micro_euros_per_kwh.map(Price), level })
}

fn time_of_day(field: &str, text: &str) -> Result<TimeOfDay, Status> {
    text.parse().map_err(|problem: String| invalid(field, problem))
}

fn day(field: &str, text: &str) -> Result<Option<jiff::civil::Date>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| invalid(field, format!("{text:?} is no day; write it like 2026-01-31")))
}

fn small(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().map(|n| u8::try_from(*n).unwrap_or(0)).collect()
}

fn zone(field: &str, given: &v1::TariffZone) -> Result<Zone, Status> {
    let at = |name: &str| format!("{field}.{name}");
    let weekdays = small(&given.weekdays).into_iter().try_fold(0_u8, |mask, day| match day {
        1..=7 => Some(mask | 1 << (day - 1)),
        _ => None,
    });
    let weekdays = match weekdays {
        Some(0) => Days::default(),
        Some(mask) => Days(mask),
        None => return Err(invalid(&at("weekdays"), "are numbers from 1 (Monday) to 7")),
    };
    let months = if given.months.is_empty() {
        Months::default()
    } else {
        Months::of(&small(&given.months))
            .ok_or_else(|| invalid(&at("months"), "are numbers from 1 (January) to 12"))?
    };
    let Offer { price, level } = offer(&at("offer"), given.offer)?;
    Ok(Zone {
        from: time_of_day(&at("from"), &given.from)?,
        to: time_of_day(&at("to"), &given.to)?,
        weekdays,
        months,
        valid_from: day(&at("valid_from"), &given.valid_from)?,
        valid_to: day(&at("valid_to"), &given.valid_to)?,
        priority: u8::try_from(given.priority)
            .map_err(|_| invalid(&at("priority"), "is a number from 0 to 255"))?,
        price,
        level,
    })
}

/// An announcement by an authenticated issuer, its form checked; its content is checked where it is taken in.
pub(in crate::api) fn announcement(
    given: Option<v1::TariffAnnouncement>,
    issuer: String,
) -> Result<Announcement, Status> {
    let given = required("announcement", given)?;
    let mut slots = Vec::with_capacity(given.slots.len());
    for (i, slot) in given.slots.into_iter().enumerate() {
        let at = |name: &str| format!("slots[{i}].{name}");
        let Offer { price, level } = offer(&at("offer"), slot.offer)?;
        slots.push(Slot {
            from: wall(&at("from"), required(&at("from"), slot.from)?)?,
            until: wall(&at("until"), required(&at("until"), slot.until)?)?,
            price,
            level,
        });
    }
    let zones = given.zones.into_iter().enumerate().map(|(i, z)| zone(&format!("zones[{i}]"), &z));
    Ok(Announcement {
        id: given.id,
        issuer,
        sequence: given.sequence,
        valid_from: wall("valid_from", required("valid_from", given.valid_from)?)?,
        valid_until: wall("valid_until", required("valid_until", given.valid_until)?)?,
        priority: u8::try_from(given.priority.unwrap_or_else(|| tariff::usual().into()))
            .map_err(|_| invalid("priority", "is a number from 0 to 255"))?,
        evses: given.evses.iter().map(|evse| EvseId::new(evse)).collect(),
        slots,
        zones: zones.collect::<Result<_, _>>()?,
        otherwise: offer("otherwise", given.otherwise)?,
    })
}

fn level(level: Option<Level>) -> v1::TariffLevel {
    match level {
        None => v1::TariffLevel::Unspecified,
        Some(Level::Low) => v1::TariffLevel::Low,
        Some(Level::Normal) => v1::TariffLevel::Normal,
        Some(Level::High) => v1::TariffLevel::High,
    }
}

fn offered(offer: Offer) -> Option<v1::TariffOffer> {
    (!offer.is_empty()).then(|| v1::TariffOffer {
        micro_euros_per_kwh: offer.price.map(|price| price.0),
        level: level(offer.level).into(),
    })
}

/// An announcement as it stands.
pub(in crate::api) fn announced(known: &Announcement) -> v1::TariffAnnouncement {
    let numbers = |mask: u32| (1..=12).filter(|n| mask & (1 << (n - 1)) != 0).collect();
    v1::TariffAnnouncement {
        id: known.id.clone(),
        issuer: known.issuer.clone(),
        sequence: known.sequence,
        valid_from: Some(timestamp(known.valid_from)),
        valid_until: Some(timestamp(known.valid_until)),
        priority: Some(known.priority.into()),
        evses: known.evses.iter().map(ToString::to_string).collect(),
        slots: known
            .slots
            .iter()
            .map(|slot| v1::TariffSlot {
                from: Some(timestamp(slot.from)),
                until: Some(timestamp(slot.until)),
                offer: offered(Offer { price: slot.price, level: slot.level }),
            })
            .collect(),
        zones: known
            .zones
            .iter()
            .map(|zone| v1::TariffZone {
                from: zone.from.to_string(),
                to: zone.to.to_string(),
                weekdays: numbers(zone.weekdays.0.into()),
                months: numbers(zone.months.0.into()),
                valid_from: zone.valid_from.map(|day| day.to_string()).unwrap_or_default(),
                valid_to: zone.valid_to.map(|day| day.to_string()).unwrap_or_default(),
                priority: zone.priority.into(),
                offer: offered(zone.offer()),
            })
            .collect(),
        otherwise: offered(known.otherwise),
    }
}

/// A stretch of time with its rate.
pub(in crate::api) fn rate(stretch: &Stretch) -> v1::Rate {
    v1::Rate {
        from: Some(timestamp(stretch.from)),
        until: Some(timestamp(stretch.until)),
        micro_euros_per_kwh: stretch.rate.price.map(|price| price.0),
        level: level(stretch.rate.level).into(),
        source: stretch.rate.source.to_string(),
    }
}

/// What a command changed.
pub(in crate::api) fn tariff_change(change: tariff::Change) -> v1::Change {
    match change {
        tariff::Change::None => v1::Change::None,
        tariff::Change::Created => v1::Change::Created,
        tariff::Change::Replaced => v1::Change::Replaced,
        tariff::Change::Removed => v1::Change::Removed,
    }
}

/// What a command changed.
pub(in crate::api) fn variable_change(change: variable::Change) -> v1::Change {
    match change {
        variable::Change::None => v1::Change::None,
        variable::Change::Created => v1::Change::Created,
        variable::Change::Replaced => v1::Change::Replaced,
        variable::Change::Removed => v1::Change::Removed,
    }
}

/// Every variable, as it stands.
pub(in crate::api) fn variables(all: &Variables, now: Wall) -> Vec<v1::Variable> {
    all.iter()
        .enumerate()
        .map(|(at, (declared, setting))| {
            let setting = setting.filter(|s| s.valid_until.is_none_or(|until| now < until));
            v1::Variable {
                name: declared.name.clone(),
                unit: declared.unit.name().to_owned(),
                value: all.value(at, now),
                issuer: setting.map(|s| s.issuer.clone()).unwrap_or_default(),
                set_at: setting.map(|s| timestamp(s.set_at)),
                valid_until: setting.and_then(|s| s.valid_until).map(timestamp),
                min: declared.min,
                max: declared.max,
                default_value: declared.default,
                roles: declared.roles.iter().map(|role| role.name().to_owned()).collect(),
            }
        })
        .collect()
}
