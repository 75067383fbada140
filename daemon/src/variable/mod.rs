//! Named variables: numbers that somebody outside sets, e.g. `AVAIL` (0 to 100 % of the connection) or `TARIF`.
//!
//! In: settings with an authenticated issuer, the time. Out: the value of each variable, with its source. Invariant: a
//! variable that the configuration does not declare does not exist; a setting is over at the end of its validity, and
//! then the default holds, or the variable has no value. Pure, but for [`keep`].

pub mod keep;

use crate::{config::Role, formula::Unit, time::Wall};

/// What the configuration says of a variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// `AVAIL`.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Least value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// What holds while nobody sets it and when a setting is over; no value without.
    pub default: Option<f64>,
    /// Who may set it; `admin` always may.
    pub roles: Vec<Role>,
}

/// A value that somebody set.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: f64,
    /// Who set it, authenticated.
    pub issuer: String,
    /// In which role.
    pub role: Role,
    /// When.
    pub set_at: Wall,
    /// Until when; open without.
    pub valid_until: Option<Wall>,
}

/// What a command changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was so already.
    None,
    /// There is a value now.
    Created,
    /// There is another value now.
    Replaced,
    /// The value is gone.
    Removed,
}

/// Why a variable is not set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not declared.
    #[error("name: there is no variable {name:?}; there are {known}")]
    Unknown {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// Out of range, over already.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The role may not.
    #[error("variable \"{name}\" is set by {may}; you are {role}", role = .role.name())]
    NotForYou {
        /// The variable.
        name: String,
        /// Who may.
        may: String,
        /// The caller's role.
        role: Role,
    },
    /// Somebody else's value holds.
    #[error(
        "variable \"{name}\" was set by {owner}; only {owner} or an admin may change it while that holds"
    )]
    NotYours {
        /// The variable.
        name: String,
        /// Who set it.
        owner: String,
    },
}

/// A wish to set a variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The variable.
    pub name: String,
    /// The value; none takes the setting back.
    pub value: Option<f64>,
    /// The authenticated caller.
    pub issuer: String,
    /// The caller's role.
    pub role: Role,
    /// Until when; open without.
    pub valid_until: Option<Wall>,
}

/// All variables, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variables {
    declared: Vec<Declaration>,
    settings: Vec<Option<Setting>>,
}

impl Variables {
    /// Declared variables, with the settings that outlived a restart. A setting without declaration, or out of its
    /// range, does not count.
    #[must_use]
    pub fn new(declared: &[Declaration], kept: Vec<(String, Setting)>) -> Self {
        let mut settings = vec![None; declared.len()];
        for (name, setting) in kept {
            let at = declared.iter().position(|d| d.name == name);
            if let Some(at) = at.filter(|at| in_range(&declared[*at], setting.value)) {
                settings[at] = Some(setting);
            }
        }
        Self { declared: declared.to_vec(), settings }
    }

    /// Declaration and setting of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Declaration, Option<&Setting>)> {
        self.declared.iter().zip(self.settings.iter().map(Option::as_ref))
    }

    /// The value of a variable, by its index.
    #[must_use]
    pub fn value(&self, at: usize, now: Wall) -> Option<f64> {
        let setting = self.settings.get(at)?.as_ref().filter(|setting| setting.holds(now));
        setting.map(|setting| setting.value).or_else(|| self.declared.get(at)?.default)
    }

    /// Sets a variable or takes its setting back. Gives its index and what changed.
    pub fn set(&mut self, wish: &Wish, now: Wall) -> Result<(usize, Change), Refusal> {
        let Some(at) = self.declared.iter().position(|d| d.name == wish.name) else {
            let known: Vec<_> = self.declared.iter().map(|d| d.name.as_str()).collect();
            let known = if known.is_empty() { "none; add [[variable]]".to_owned() } else { known.join(", ") };
            return Err(Refusal::Unknown { name: wish.name.clone(), known });
        };
        let declared = &self.declared[at];
        if wish.role != Role::Admin && !declared.roles.contains(&wish.role) {
            let may: Vec<_> = declared.roles.iter().map(|role| role.name()).chain(["admin"]).collect();
            return Err(Refusal::NotForYou { name: wish.name.clone(), may: may.join(", "), role: wish.role });
        }
        let standing = self.settings[at].as_ref().filter(|setting| setting.holds(now));
        if let Some(setting) = standing.filter(|s| s.issuer != wish.issuer && wish.role != Role::Admin) {
            return Err(Refusal::NotYours { name: wish.name.clone(), owner: setting.issuer.clone() });
        }
        let Some(value) = wish.value else {
            let change = if standing.is_some() { Change::Removed } else { Change::None };
            self.settings[at] = None;
            return Ok((at, change));
        };
        if !in_range(declared, value) {
            let Declaration { min, max, unit, .. } = declared;
            let problem = format!("{value} is out of range; use {min} to {max} {}", unit.name());
            return Err(Refusal::Invalid { field: "value", problem: problem.trim_end().to_owned() });
        }
        if let Some(until) = wish.valid_until.filter(|until| *until <= now) {
            return Err(Refusal::Invalid {
                field: "valid_until",
                problem: format!("{until} is over; it is {now}"),
            });
        }
        let change = match standing {
            Some(s)
                if s.value.to_bits() == value.to_bits()
                    && s.valid_until == wish.valid_until
                    && s.issuer == wish.issuer =>
            {
                return Ok((at, Change::None));
            }
            Some(_) => Change::Replaced,
            None => Change::Created,
        };
        self.settings[at] = Some(Setting {
            value,
            issuer: wish.issuer.clone(),
            role: wish.role,
            set_at: now,
            valid_until: wish.valid_until,
        });
        Ok((at, change))
    }

    /// Drops settings that are over. Gives their names.
    pub fn expire(&mut self, now: Wall) -> Vec<String> {
        let mut over = Vec::new();
        for (declared, setting) in self.declared.iter().zip(&mut self.settings) {
            if setting.as_ref().is_some_and(|setting| !setting.holds(now)) {
                *setting = None;
                over.push(declared.name.clone());
            }
        }
        over
    }
}

impl Setting {
    fn holds(&self, now: Wall) -> bool {
        self.valid_until.is_none_or(|until| now < until)
    }
}

fn in_range(declared: &Declaration, value: f64) -> bool {
    // NaN is in no range.
    value >= declared.min && value <= declared.max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let avail = Declaration {
            name: "AVAIL".into(),
            unit: Unit::Percent,
            min: 0.0,
            max: 100.0,
            default: Some(100.0),
            roles: vec![Role::Grid],
        };
        let free =
            Declaration { name: "X".into(), default: None, roles: vec![Role::Supplier], ..avail.clone() };
        Variables::new(&[avail, free], Vec::new())
    }

    fn wish(name: &str, value: f64, issuer: &str, role: Role, until: Option<i64>) -> Wish {
        let valid_until = until.map(Wall);
        Wish { name: name.into(), value: Some(value), issuer: issuer.into(), role, valid_until }
    }

    #[test]
    fn a_setting_holds_until_its_end_and_the_default_after() {
        let mut all = variables();
        assert_eq!(
            (all.value(0, Wall(0)), all.value(1, Wall(0)), all.value(9, Wall(0))),
            (Some(100.0), None, None)
        );
        let set = wish("AVAIL", 60.0, "dso", Role::Grid, Some(10));
        assert_eq!(all.set(&set, Wall(0)), Ok((0, Change::Created)));
        assert_eq!(all.set(&set, Wall(1)), Ok((0, Change::None)));
        assert_eq!((all.value(0, Wall(9)), all.value(0, Wall(10))), (Some(60.0), Some(100.0)));
        assert_eq!(all.expire(Wall(10)), ["AVAIL"]);
        assert_eq!(all.expire(Wall(10)), [""; 0]);
    }

    #[test]
    fn who_may_not_and_what_cannot_be_is_refused() {
        let mut all = variables();
        let mut refused = |wish: Wish| all.set(&wish, Wall(5)).unwrap_err().to_string();
        let grid = Role::Grid;
        for (says, text) in [
            (
                "name: there is no variable \"AVIAL\"; there are AVAIL, X",
                refused(wish("AVIAL", 1.0, "d", grid, None)),
            ),
            ("value: 101 is out of range; use 0 to 100 %", refused(wish("AVAIL", 101.0, "d", grid, None))),
            ("value: NaN is out of range", refused(wish("AVAIL", f64::NAN, "d", grid, None))),
            (
                "valid_until: 1970-01-01T00:00:00.005Z is over",
                refused(wish("AVAIL", 1.0, "d", grid, Some(5))),
            ),
            (
                "is set by grid, admin; you are supplier",
                refused(wish("AVAIL", 1.0, "s", Role::Supplier, None)),
            ),
        ] {
            assert!(text.contains(says), "{text}");
        }
        all.set(&wish("AVAIL", 50.0, "dso", grid, None), Wall(5)).unwrap();
        let other = wish("AVAIL", 100.0, "other", grid, None);
        assert!(matches!(all.set(&other, Wall(6)), Err(Refusal::NotYours { .. })));
        assert_eq!(all.set(&Wish { role: Role::Admin, ..other }, Wall(6)), Ok((0, Change::Replaced)));
        let back = Wish { value: None, ..wish("AVAIL", 0.0, "other", grid, None) };
        assert_eq!(all.set(&back, Wall(7)), Ok((0, Change::Removed)));
        assert_eq!(all.set(&back, Wall(7)), Ok((0, Change::None)));
    }

    #[test]
    fn a_setting_that_no_longer_fits_its_declaration_does_not_come_back() {
        let setting = |value| Setting {
            value,
            issuer: "d".into(),
            role: Role::Grid,
            set_at: Wall(0),
            valid_until: None,
        };
        let declared = variables().declared;
        let kept =
            vec![("AVAIL".into(), setting(130.0)), ("GONE".into(), setting(1.0)), ("X".into(), setting(7.0))];
        let all = Variables::new(&declared, kept);
        assert_eq!((all.value(0, Wall(1)), all.value(1, Wall(1))), (Some(100.0), Some(7.0)));
    }
}
