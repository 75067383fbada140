//! Expressions over what the site knows: in limits (`55000 * AVAIL / 100`), in charging rules (`TARIF == 1`).
//!
//! In: text in the syntax of CEL (Common Expression Language), and the names that may occur. Out: a [`Formula`] that
//! gives a number or a truth. Invariant: what has compiled has known names and fitting units, and costs at most
//! [`NODES`] steps to evaluate, because there are no loops; it never panics, and a value that is not there is a
//! [`Fault`], never a guess. Pure.
//!
//! The parser is the `cel` crate's; what it accepts is narrowed here. Numbers are of one kind (`7 / 2` is 3.5), which
//! is why AVAIL may be 62.5. Not part of it: comprehensions (`all`, `exists`, `map`, `filter`), maps, messages,
//! bytes, and calls other than `min max abs floor ceil round`.
//!
//! | unit | of | computes with |
//! |---|---|---|
//! | none | a number as written, a variable without unit | every unit |
//! | `%` | a variable | scales every unit: `W * %` is `W` |
//! | `W` `A` `V` `Wh` | meters, EVSEs, variables | `A * V` is `W`, `W / V` is `A`, `W / A` is `V`; like with like |
//! | `ct/kWh` | the price | like with like; scaled |

mod compile;
mod evaluate;
mod unit;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub use self::unit::Unit;

/// Longest text in bytes.
pub const LENGTH: usize = 1000;
/// Most nodes of the tree: the cost of one evaluation.
pub const NODES: usize = 200;
/// Deepest nesting.
pub const DEPTH: u16 = 24;

/// A name that an expression may use, resolved: indexes are those of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// A named variable.
    Variable(usize),
    /// A value of a meter.
    Meter(usize, MeterField),
    /// A value of an EVSE.
    Evse(usize, EvseField),
    /// Whether a contact is closed.
    Contact(usize),
    /// Hour of the local day, with its fraction: 17.5 is half past five.
    Hour,
    /// Day of the week by the local calendar: 1 is Monday.
    Weekday,
    /// The present price, ct/kWh.
    Price,
    /// The present tariff level: `"low"`, `"normal"`, `"high"`.
    Level,
    /// What the site would feed in if no EVSE charged.
    Surplus,
}

/// What a meter tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MeterField {
    /// Power of all phases.
    Power,
    /// Energy drawn so far.
    Import,
    /// Energy fed in so far.
    Export,
    /// Current of L1, L2 or L3, by 0 to 2.
    Current(usize),
    /// Voltage of L1, L2 or L3, by 0 to 2.
    Voltage(usize),
}

/// What an EVSE tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EvseField {
    /// Power by its own measurement.
    Power,
    /// Largest current of its phases.
    Current,
    /// Setpoint per phase.
    Setpoint,
    /// Whether its connection stands.
    Connected,
    /// Whether a transaction runs.
    Charging,
}

/// Where names are looked up when an expression is compiled.
pub trait Scope {
    /// A name by its path: `["AVAIL"]`, `["meter", "grid", "power"]`.
    fn resolve(&self, path: &[String]) -> Option<(Name, Unit)>;
    /// Every name, for the error that one is not there.
    fn known(&self) -> Vec<String>;
}

/// What an expression gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// In the unit of the expression.
    Number(f64),
    /// A condition.
    Truth(bool),
    /// A level.
    Text(Arc<str>),
}

/// Why a text is no expression. Found when the site is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormulaError {
    /// Too long, too deep, too many nodes.
    #[error("costs too much: {0}")]
    TooCostly(String),
    /// Not CEL.
    #[error("is not an expression: {0}")]
    Syntax(String),
    /// CEL, but not part of this subset.
    #[error(
        "{0} is not possible here; use + - * / % < <= == != >= > && || ! ?: in, min max abs floor ceil round"
    )]
    NotPossible(String),
    /// A name that the site does not have.
    #[error("there is no {name:?} on this site; there are {known}")]
    Unknown {
        /// As written.
        name: String,
        /// What there is.
        known: String,
    },
    /// Units that do not fit.
    #[error("units do not fit: {0}")]
    Unit(String),
    /// A divisor that is always 0.
    #[error("divides by zero: {0}")]
    DivisionByZero(String),
}

/// Why an expression has no value now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something is not known now: a meter is silent, a variable is over and has no default.
    #[error("{0} is not known now")]
    Missing(String),
    /// The divisor is 0 now.
    #[error("it would divide by zero now")]
    DivisionByZero,
    /// Too large to be a number.
    #[error("the result is not a number")]
    NotANumber,
}

/// A compiled expression.
#[derive(Clone)]
pub struct Formula {
    text: Arc<str>,
    root: Node,
    unit: Unit,
    nodes: usize,
}

/// What evaluates: every child is owned, so there are no cycles, and nothing repeats.
#[derive(Debug, Clone)]
enum Node {
    Constant(Value),
    Name(Name, Arc<str>),
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<(Node, Node)>),
    Choice(Box<(Node, Node, Node)>),
    Among(Box<Node>, Vec<Node>),
    Least(Vec<Node>),
    Most(Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unary {
    Not,
    Minus,
    Abs,
    Floor,
    Ceil,
    Round,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
}

impl Formula {
    /// Compiles a text whose result is `wanted`; a result without unit is taken as it.
    pub fn compile(text: &str, scope: &(dyn Scope + Sync), wanted: Unit) -> Result<Self, FormulaError> {
        compile::compile(text, scope, wanted)
    }

    /// Its value, in the unit it was compiled for.
    pub fn evaluate(&self, look: &dyn Fn(Name) -> Option<Value>) -> Result<Value, Fault> {
        evaluate::evaluate(&self.root, look)
    }

    /// Its value as a number.
    pub fn number(&self, look: &dyn Fn(Name) -> Option<Value>) -> Result<f64, Fault> {
        match self.evaluate(look)? {
            Value::Number(number) if number.is_finite() => Ok(number),
            _ => Err(Fault::NotANumber),
        }
    }

    /// Whether it holds.
    pub fn holds(&self, look: &dyn Fn(Name) -> Option<Value>) -> Result<bool, Fault> {
        match self.evaluate(look)? {
            Value::Truth(truth) => Ok(truth),
            _ => Err(Fault::NotANumber),
        }
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Steps that one evaluation takes at most.
    #[must_use]
    pub const fn cost(&self) -> usize {
        self.nodes
    }

    /// The names it uses, in order, each once.
    #[must_use]
    pub fn names(&self) -> Vec<(Name, Arc<str>)> {
        let mut names = Vec::new();
        self.root.names(&mut names);
        names
    }
}

impl Node {
    fn names(&self, into: &mut Vec<(Name, Arc<str>)>) {
        match self {
            Self::Constant(_) => {}
            Self::Name(name, text) => {
                if !into.iter().any(|(known, _)| known == name) {
                    into.push((*name, Arc::clone(text)));
                }
            }
            Self::Unary(_, of) => of.names(into),
            Self::Binary(_, both) => {
                both.0.names(into);
                both.1.names(into);
            }
            Self::Choice(three) => {
                three.0.names(into);
                three.1.names(into);
                three.2.names(into);
            }
            Self::Among(of, list) => {
                of.names(into);
                for node in list {
                    node.names(into);
                }
            }
            Self::Least(list) | Self::Most(list) => list.iter().for_each(|node| node.names(into)),
        }
    }
}

/// As written.
impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Formula").field(&self.text).field(&self.unit).finish()
    }
}

impl PartialEq for Formula {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.unit == other.unit
    }
}

impl Eq for Formula {}
