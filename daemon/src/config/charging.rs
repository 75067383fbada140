//! Tariffs, named variables, formulas and charging rules, as checked.

use crate::{
    formula::Formula, ids::LimitId, rules::Rule, tariff::Schedule, units::Watts, variable::Declaration,
};

/// What decides who charges when.
#[derive(Debug, Clone, Default)]
pub struct Charging {
    /// What energy costs when, as far as nobody announces it.
    pub tariff: Schedule,
    /// Named variables.
    pub variables: Vec<Declaration>,
    /// Limits by formula.
    pub limits: Vec<FormulaLimit>,
    /// Somebody whose cards have rules.
    pub users: Vec<User>,
    /// Charging rules, in order.
    pub rules: Vec<Rule>,
}

/// A power limit by a formula.
#[derive(Debug, Clone)]
pub struct FormulaLimit {
    /// Name.
    pub id: LimitId,
    /// Index of the limited node.
    pub node: usize,
    /// In watts.
    pub watts: Formula,
    /// What holds while the formula has no value.
    pub otherwise: Watts,
}

/// Somebody whose cards have rules.
#[derive(Debug, Clone)]
pub struct User {
    /// Name.
    pub name: String,
    /// IdTags in lower case.
    pub cards: Vec<String>,
}

impl Charging {
    /// The user to whom a card belongs.
    #[must_use]
    pub fn user(&self, card: &str) -> Option<usize> {
        let card = card.to_lowercase();
        self.users.iter().position(|user| user.cards.contains(&card))
    }
}
