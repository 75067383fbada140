//! Tariffs as an OCPP backend sends them → announcements. Pure functions; who may call them and what answers the
//! backend is `ocpp`'s.
//!
//! In: the payload of `SetDefaultTariff` or `ChangeTransactionTariff` (OCPP 2.1 Part 2, TariffType), or the text of a
//! `DataTransfer` with [`VENDOR`] and [`MESSAGE`]. Out: an [`Announcement`] of the backend, not yet checked against
//! what is known. What would change the price of a charge in a way that is not modelled (reservation, fixed fees,
//! power bands, idle time) is refused rather than left out: a rule must not decide on half a tariff.

use serde::Deserialize;
use serde_json::Value;

use super::{Announcement, Days, Offer, TimeOfDay, Zone};
use crate::{ids::EvseId, time::Wall, units::Price};

/// `vendorId` of a `DataTransfer` with a tariff.
pub const VENDOR: &str = "de.ladewart";
/// `messageId` of a `DataTransfer` with a tariff.
pub const MESSAGE: &str = "Tariff";
/// Largest text that is read, in bytes.
pub const LONGEST: usize = 256 << 10;

/// Why a payload is no tariff that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No JSON, or not of this form.
    #[error("is not a tariff: {0}")]
    Form(String),
    /// A field says something that cannot be.
    #[error("{field}: {problem}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A part of OCPP's tariffs that is not modelled here.
    #[error("{0} is not supported; send prices per kWh with times, weekdays and dates")]
    Unsupported(String),
}

fn form(error: &serde_json::Error) -> DecodeError {
    DecodeError::Form(error.to_string())
}

fn field<T>(name: impl Into<String>, problem: impl std::fmt::Display) -> Result<T, DecodeError> {
    Err(DecodeError::Field { field: name.into(), problem: problem.to_string() })
}

/// The `data` of a `DataTransfer`: an [`Announcement`] as JSON.
///
/// ```json
/// {"id": "day-ahead", "sequence": 4, "valid_from": "2026-11-25T00:00:00+01:00",
///  "valid_until": "2026-11-26T00:00:00+01:00",
///  "slots": [{"from": "2026-11-25T00:00:00+01:00", "until": "2026-11-25T06:00:00+01:00", "price": "18.2 ct/kWh"}]}
/// ```
pub fn data_transfer(issuer: &str, data: &str) -> Result<Announcement, DecodeError> {
    if data.len() > LONGEST {
        return Err(DecodeError::Form(format!("{} bytes; at most {LONGEST}", data.len())));
    }
    let mut new: Announcement = serde_json::from_str(data).map_err(|e| form(&e))?;
    issuer.clone_into(&mut new.issuer);
    Ok(new)
}

/// OCPP 2.1 Part 2, TariffType, as far as it can be used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tariff {
    #[serde(rename = "tariffId")]
    id: String,
    currency: String,
    valid_from: Option<Wall>,
    energy: Option<Energy>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Energy {
    prices: Vec<EnergyPrice>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnergyPrice {
    price_kwh: Option<serde_json::Number>,
    conditions: Option<Conditions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    start_time_of_day: Option<String>,
    end_time_of_day: Option<String>,
    day_of_week: Option<Vec<String>>,
    valid_from_date: Option<jiff::civil::Date>,
    valid_to_date: Option<jiff::civil::Date>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Fields of a tariff that say nothing about when energy is cheap.
const HARMLESS: [&str; 3] = ["description", "customData", "minCost"];
/// How long a tariff without an end holds: until the next one, at most a year.
const YEAR_MS: i64 = 366 * 86_400_000;

/// Priority of a tariff for one transaction: it goes before what holds for everybody.
pub const TRANSACTION: u8 = 20;
/// How long such a tariff holds at most, should nobody say that the transaction is over.
const LONGEST_TRANSACTION_MS: i64 = 7 * 86_400_000;

/// The payload of `ChangeTransactionTariff`: as [`set_tariff`], from now on, for one transaction.
pub fn transaction_tariff(issuer: &str, payload: &str, now: Wall) -> Result<Announcement, DecodeError> {
    let mut new = set_tariff(issuer, payload, None, now)?;
    new.priority = TRANSACTION;
    new.valid_until = Wall(new.valid_from.max(now).0.saturating_add(LONGEST_TRANSACTION_MS));
    Ok(new)
}

/// The payload of `SetDefaultTariff` or `ChangeTransactionTariff`. The first price whose conditions hold is the one
/// that holds, as OCPP has it. OCPP's tariffs carry no version: the time of receipt stands in its place.
pub fn set_tariff(
    issuer: &str,
    payload: &str,
    evse: Option<&EvseId>,
    now: Wall,
) -> Result<Announcement, DecodeError> {
    #[derive(Deserialize)]
    struct Request {
        tariff: Tariff,
    }
    if payload.len() > LONGEST {
        return Err(DecodeError::Form(format!("{} bytes; at most {LONGEST}", payload.len())));
    }
    let Request { tariff } = serde_json::from_str(payload).map_err(|e| form(&e))?;
    if tariff.currency != "EUR" {
        return field("tariff.currency", format!("is {:?}; prices are in EUR here", tariff.currency));
    }
    if let Some(name) = tariff.rest.keys().find(|name| !HARMLESS.contains(&name.as_str())) {
        return Err(DecodeError::Unsupported(format!("tariff.{name}")));
    }
    let prices = tariff.energy.map(|energy| energy.prices).unwrap_or_default();
    if prices.is_empty() {
        return field("tariff.energy.prices", "is missing or empty");
    }
    if prices.len() > 100 {
        return field("tariff.energy.prices", format!("are {}; at most 100", prices.len()));
    }
    let count = prices.len();
    let (mut zones, mut otherwise) = (Vec::new(), Offer::default());
    for (i, price) in prices.into_iter().enumerate() {
        let at = format!("tariff.energy.prices[{i}]");
        let Some(number) = price.price_kwh else {
            return field(format!("{at}.priceKwh"), "is missing");
        };
        let Some(price_kwh) = euros(&number.to_string()) else {
            return field(
                format!("{at}.priceKwh"),
                format!("{number} has more than six decimals or is too large"),
            );
        };
        let conditions = price.conditions.unwrap_or_default();
        let zone = zone(&at, price_kwh, &conditions, u8::try_from(count - i).unwrap_or(u8::MAX))?;
        let always = conditions.start_time_of_day.is_none()
            && conditions.end_time_of_day.is_none()
            && conditions.day_of_week.is_none()
            && conditions.valid_from_date.is_none()
            && conditions.valid_to_date.is_none();
        if always {
            // What stands behind it never holds.
            otherwise = Offer { price: Some(price_kwh), level: None };
            break;
        }
        zones.push(zone);
    }
    let valid_from = tariff.valid_from.unwrap_or(now);
    Ok(Announcement {
        id: tariff.id,
        issuer: issuer.to_owned(),
        sequence: u64::try_from(now.0).unwrap_or(0),
        valid_from,
        valid_until: Wall(valid_from.max(now).0.saturating_add(YEAR_MS)),
        priority: super::usual(),
        evses: evse.into_iter().cloned().collect(),
        slots: Vec::new(),
        zones,
        otherwise,
    })
}

fn zone(at: &str, price: Price, conditions: &Conditions, priority: u8) -> Result<Zone, DecodeError> {
    if let Some(name) = conditions.rest.keys().find(|name| *name != "customData") {
        return Err(DecodeError::Unsupported(format!("{at}.conditions.{name}")));
    }
    let time = |name: &str, text: Option<&String>| match text {
        None => Ok(TimeOfDay(0)),
        Some(text) => {
            text.parse().or_else(|problem: String| field(format!("{at}.conditions.{name}"), problem))
        }
    };
    let mut mask = 0;
    for day in conditions.day_of_week.iter().flatten() {
        const NAMES: [&str; 7] =
            ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        match NAMES.iter().position(|name| name == day) {
            Some(bit) => mask |= 1 << bit,
            None => {
                return field(format!("{at}.conditions.dayOfWeek"), format!("{day:?} is no day of the week"));
            }
        }
    }
    Ok(Zone {
        from: time("startTimeOfDay", conditions.start_time_of_day.as_ref())?,
        // 00:00 as an end is the end of the day.
        to: time("endTimeOfDay", conditions.end_time_of_day.as_ref())
            .map(|t| if t.0 == 0 { TimeOfDay(1440) } else { t })?,
        weekdays: if mask == 0 { Days::default() } else { Days(mask) },
        months: super::Months::default(),
        valid_from: conditions.valid_from_date,
        // OCPP's is the first day on which it does not hold any more.
        valid_to: match conditions.valid_to_date {
            Some(day) => match day.yesterday() {
                Ok(last) => Some(last),
                Err(_) => return field(format!("{at}.conditions.validToDate"), "lies before the calendar"),
            },
            None => None,
        },
        priority,
        price: Some(price),
        level: None,
    })
}

/// Decimal text → millionths, exactly.
fn euros(text: &str) -> Option<Price> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    if part.len() > 6 || whole.len() > 6 {
        return None;
    }
    let value: i64 = format!("{whole}{part:0<6}").parse().ok()?;
    Some(Price(if negative { -value } else { value }))
}
