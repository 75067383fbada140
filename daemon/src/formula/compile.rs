//! Text → tree: the `cel` crate parses, everything that it takes and we do not is refused here, names are resolved and
//! units checked.

use std::sync::Arc;

use cel::{
    common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op},
    parser::Parser,
};

use super::{
    Binary, DEPTH, Formula, FormulaError, LENGTH, NODES, Node, Scope, Unary, Unit, Value, evaluate::evaluate,
};

pub(super) fn compile(text: &str, scope: &(dyn Scope + Sync), wanted: Unit) -> Result<Formula, FormulaError> {
    if text.len() > LENGTH {
        return Err(too_costly(format!("{} bytes; at most {LENGTH}", text.len())));
    }
    let deepest = nesting(text);
    if deepest > usize::from(DEPTH) {
        return Err(too_costly(format!("it nests {deepest} deep; at most {DEPTH}")));
    }
    // The parser recurses some frames for every bracket, and its frames are large: it gets a stack of its own.
    std::thread::scope(|scope_of_thread| {
        let worker = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope_of_thread, || read(text, scope, wanted))
            .map_err(|error| FormulaError::Syntax(format!("it cannot be read now: {error}")))?;
        worker.join().unwrap_or_else(|_| Err(FormulaError::Syntax("it cannot be read".to_owned())))
    })
}

/// What [`DEPTH`] needs in a debug build is a tenth of it.
const STACK: usize = 32 << 20;

fn read(text: &str, scope: &(dyn Scope + Sync), wanted: Unit) -> Result<Formula, FormulaError> {
    let parsed = Parser::new().max_recursion_depth(4 * DEPTH).error_recovery_limit(4).parse(text);
    let tree = parsed.map_err(|errors| syntax(&errors))?;
    let mut tally = Tally { scope, nodes: 0 };
    let (root, unit) = tally.node(&tree, 0)?;
    match (wanted, unit) {
        (wanted, unit) if wanted == unit => {}
        (wanted, Unit::None) if wanted.is_number() => {}
        (wanted, unit) => {
            return Err(FormulaError::Unit(format!("the result is {unit}, but {wanted} is wanted")));
        }
    }
    Ok(Formula { text: text.into(), root, unit: wanted, nodes: tally.nodes })
}

fn too_costly(what: String) -> FormulaError {
    FormulaError::TooCostly(what)
}

/// The parser's recursion is bounded by what it recurses on, before it begins: brackets, and signs and choices that
/// stand one behind the other.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut signs) = (0_usize, 0_usize, 0_usize);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '-' | '?' => signs += 1,
            c if c.is_whitespace() => {}
            _ => {
                deepest = deepest.max(depth + signs);
                signs = 0;
            }
        }
        deepest = deepest.max(depth + signs);
    }
    deepest
}

fn syntax(errors: &cel::ParseErrors) -> FormulaError {
    let Some(first) = errors.errors.first() else {
        return FormulaError::Syntax("it cannot be read".to_owned());
    };
    if first.msg.contains("recursion") {
        return too_costly("it nests too deep".to_owned());
    }
    let message: String = first.msg.chars().filter(|c| !c.is_control()).take(160).collect();
    // Columns are counted from 0 there.
    FormulaError::Syntax(format!("{message} at column {}", first.pos.1.saturating_add(1)))
}

struct Tally<'a> {
    scope: &'a dyn Scope,
    nodes: usize,
}

type Typed = (Node, Unit);

impl Tally<'_> {
    fn node(&mut self, tree: &IdedExpr, depth: u16) -> Result<Typed, FormulaError> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(too_costly(format!("it has more than {NODES} parts")));
        }
        // A chain of && is a deep tree without being deeply nested.
        if usize::from(depth) > NODES {
            return Err(too_costly("it nests too deep".to_owned()));
        }
        match &tree.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(_) | Expr::Select(_) => self.name(tree),
            Expr::Call(call) if call.func_name == op::INDEX => self.name(tree),
            Expr::Call(call) => self.call(call, depth),
            Expr::Comprehension(_) => {
                Err(too_costly("loops over lists (all, exists, map, filter) are not part of it".to_owned()))
            }
            Expr::List(_) => Err(FormulaError::NotPossible("a list, except behind \"in\",".to_owned())),
            Expr::Map(_) | Expr::Struct(_) => Err(FormulaError::NotPossible("a map".to_owned())),
            Expr::Unspecified => Err(FormulaError::Syntax("it is empty".to_owned())),
        }
    }

    fn name(&mut self, tree: &IdedExpr) -> Result<Typed, FormulaError> {
        let mut path = Vec::new();
        spell(tree, &mut path)?;
        let text = path.join(".");
        match self.scope.resolve(&path) {
            Some((name, unit)) => Ok((Node::Name(name, text.into()), unit)),
            None => {
                let mut known = self.scope.known();
                known.truncate(40);
                Err(FormulaError::Unknown { name: text, known: known.join(", ") })
            }
        }
    }

    fn call(&mut self, call: &CallExpr, depth: u16) -> Result<Typed, FormulaError> {
        if call.target.is_some() {
            return Err(FormulaError::NotPossible(format!("the call .{}()", call.func_name)));
        }
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (op::IN, [of, list]) => self.among(of, list, depth),
            (op::CONDITIONAL, [condition, then, other]) => {
                let condition = self.truth(condition, depth)?;
                let ((then, a), (other, b)) = (self.node(then, depth + 1)?, self.node(other, depth + 1)?);
                let unit = a.common(b).ok_or_else(|| {
                    FormulaError::Unit(format!(
                        "the choice is between {a} and {b}; both sides are of one unit"
                    ))
                })?;
                Ok((Node::Choice(Box::new((condition, then, other))), unit))
            }
            (op::LOGICAL_NOT, [of]) => {
                Ok((Node::Unary(Unary::Not, Box::new(self.truth(of, depth)?)), Unit::Truth))
            }
            (op::NEGATE, [of]) => self.unary(Unary::Minus, of, depth),
            ("abs", [of]) => self.unary(Unary::Abs, of, depth),
            ("floor", [of]) => self.unary(Unary::Floor, of, depth),
            ("ceil", [of]) => self.unary(Unary::Ceil, of, depth),
            ("round", [of]) => self.unary(Unary::Round, of, depth),
            ("min" | "max", [first, rest @ ..]) => {
                let (first, mut unit) = self.number(first, depth)?;
                let mut all = vec![first];
                for tree in rest {
                    let (node, of) = self.number(tree, depth)?;
                    unit = unit.common(of).ok_or_else(|| {
                        FormulaError::Unit(format!("{name}() of {unit} and {of}; all are of one unit"))
                    })?;
                    all.push(node);
                }
                Ok((if name == "min" { Node::Least(all) } else { Node::Most(all) }, unit))
            }
            (_, [left, right]) => match binary(name) {
                Some(what) => self.binary(what, left, right, depth),
                None => Err(FormulaError::NotPossible(format!("the call {name}()"))),
            },
            _ => Err(FormulaError::NotPossible(format!("{name}() with {} arguments", call.args.len()))),
        }
    }

    fn truth(&mut self, tree: &IdedExpr, depth: u16) -> Result<Node, FormulaError> {
        match self.node(tree, depth + 1)? {
            (node, Unit::Truth) => Ok(node),
            (_, unit) => Err(FormulaError::Unit(format!("{unit} stands where a condition is wanted"))),
        }
    }

    fn number(&mut self, tree: &IdedExpr, depth: u16) -> Result<Typed, FormulaError> {
        let (node, unit) = self.node(tree, depth + 1)?;
        if unit.is_number() {
            return Ok((node, unit));
        }
        Err(FormulaError::Unit(format!("{unit} stands where a number is wanted")))
    }

    fn unary(&mut self, what: Unary, of: &IdedExpr, depth: u16) -> Result<Typed, FormulaError> {
        let (node, unit) = self.number(of, depth)?;
        Ok((Node::Unary(what, Box::new(node)), unit))
    }

    fn among(&mut self, of: &IdedExpr, list: &IdedExpr, depth: u16) -> Result<Typed, FormulaError> {
        let (of, unit) = self.node(of, depth + 1)?;
        let Expr::List(list) = &list.expr else {
            return Err(FormulaError::NotPossible("\"in\" without a list like [1, 2]".to_owned()));
        };
        let mut all = Vec::with_capacity(list.elements.len().min(NODES));
        for element in &list.elements {
            let (node, other) = self.node(element, depth + 1)?;
            unit.common(other).ok_or_else(|| {
                FormulaError::Unit(format!("{unit} is looked for among {other}; all are of one unit"))
            })?;
            all.push(node);
        }
        Ok((Node::Among(Box::new(of), all), Unit::Truth))
    }

    fn binary(
        &mut self,
        what: Binary,
        left: &IdedExpr,
        right: &IdedExpr,
        depth: u16,
    ) -> Result<Typed, FormulaError> {
        let misfit = |verb: &str, a: Unit, b: Unit| FormulaError::Unit(format!("{a} {verb} {b}"));
        let (node, unit) = match what {
            Binary::And | Binary::Or => {
                ((self.truth(left, depth)?, self.truth(right, depth)?), Some(Unit::Truth))
            }
            Binary::Equal | Binary::NotEqual => {
                let ((l, a), (r, b)) = (self.node(left, depth + 1)?, self.node(right, depth + 1)?);
                a.common(b).ok_or_else(|| misfit("is compared with", a, b))?;
                ((l, r), Some(Unit::Truth))
            }
            _ => {
                let ((l, a), (r, b)) = (self.number(left, depth)?, self.number(right, depth)?);
                let unit = match what {
                    Binary::Multiply => a.times(b).ok_or_else(|| misfit("times", a, b))?,
                    Binary::Divide => a.over(b).ok_or_else(|| misfit("divided by", a, b))?,
                    Binary::Add => a.common(b).ok_or_else(|| misfit("plus", a, b))?,
                    Binary::Subtract => a.common(b).ok_or_else(|| misfit("minus", a, b))?,
                    Binary::Remainder => a.common(b).ok_or_else(|| misfit("modulo", a, b))?,
                    _ => a.common(b).map(|_| Unit::Truth).ok_or_else(|| misfit("is compared with", a, b))?,
                };
                ((l, r), Some(unit))
            }
        };
        if matches!(what, Binary::Divide | Binary::Remainder) && always_zero(&node.1) {
            return Err(FormulaError::DivisionByZero("the divisor is 0 whatever the values are".to_owned()));
        }
        Ok((Node::Binary(what, Box::new(node)), unit.unwrap_or(Unit::Truth)))
    }
}

fn binary(name: &str) -> Option<Binary> {
    Some(match name {
        op::ADD => Binary::Add,
        op::SUBSTRACT => Binary::Subtract,
        op::MULTIPLY => Binary::Multiply,
        op::DIVIDE => Binary::Divide,
        op::MODULO => Binary::Remainder,
        op::EQUALS => Binary::Equal,
        op::NOT_EQUALS => Binary::NotEqual,
        op::LESS => Binary::Less,
        op::LESS_EQUALS => Binary::LessEqual,
        op::GREATER => Binary::Greater,
        op::GREATER_EQUALS => Binary::GreaterEqual,
        op::LOGICAL_AND => Binary::And,
        op::LOGICAL_OR => Binary::Or,
        _ => return None,
    })
}

fn constant(literal: &LiteralValue) -> Result<Typed, FormulaError> {
    let number = |number: f64| Ok((Node::Constant(Value::Number(number)), Unit::None));
    match literal {
        LiteralValue::Boolean(truth) => Ok((Node::Constant(Value::Truth(*truth.inner())), Unit::Truth)),
        LiteralValue::Double(value) if value.inner().is_finite() => number(*value.inner()),
        LiteralValue::Int(value) => number(*value.inner() as f64),
        LiteralValue::UInt(value) => number(*value.inner() as f64),
        LiteralValue::String(text) => Ok((Node::Constant(Value::Text(Arc::from(text.inner()))), Unit::Text)),
        LiteralValue::Double(_) => Err(FormulaError::Syntax("a number is too large".to_owned())),
        LiteralValue::Bytes(_) | LiteralValue::Null => {
            Err(FormulaError::NotPossible("null or bytes".to_owned()))
        }
    }
}

/// `meter.grid.power`, `meter["grid-1"].power`.
fn spell(tree: &IdedExpr, path: &mut Vec<String>) -> Result<(), FormulaError> {
    if path.len() > 8 {
        return Err(FormulaError::NotPossible("a name with so many parts".to_owned()));
    }
    match &tree.expr {
        Expr::Ident(name) => path.push(name.clone()),
        Expr::Select(select) if !select.test => {
            spell(&select.operand, path)?;
            path.push(select.field.clone());
        }
        Expr::Call(call) if call.func_name == op::INDEX => match call.args.as_slice() {
            [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                spell(of, path)?;
                path.push(key.inner().to_owned());
            }
            _ => return Err(FormulaError::NotPossible("an index other than a name in quotes".to_owned())),
        },
        _ => return Err(FormulaError::NotPossible("a field of something that is no name".to_owned())),
    }
    Ok(())
}

/// Without any name, and 0.
fn always_zero(node: &Node) -> bool {
    let mut names = Vec::new();
    node.names(&mut names);
    names.is_empty() && matches!(evaluate(node, &|_| None), Ok(Value::Number(number)) if number == 0.0)
}
