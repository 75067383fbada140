//! Tree → value. Each node is visited at most once.

use super::{Binary, Fault, Name, Node, Unary, Value};

pub(super) fn evaluate(node: &Node, look: &dyn Fn(Name) -> Option<Value>) -> Result<Value, Fault> {
    Ok(match node {
        Node::Constant(value) => value.clone(),
        Node::Name(name, text) => match look(*name) {
            Some(Value::Number(number)) if !number.is_finite() => {
                return Err(Fault::Missing(text.to_string()));
            }
            Some(value) => value,
            None => return Err(Fault::Missing(text.to_string())),
        },
        Node::Unary(Unary::Not, of) => Value::Truth(!truth(of, look)?),
        Node::Unary(what, of) => {
            let of = number(of, look)?;
            Value::Number(match what {
                Unary::Minus => -of,
                Unary::Abs => of.abs(),
                Unary::Floor => of.floor(),
                Unary::Ceil => of.ceil(),
                Unary::Round | Unary::Not => of.round(),
            })
        }
        Node::Binary(what, both) => binary(*what, &both.0, &both.1, look)?,
        Node::Choice(three) => {
            let (condition, then, other) = &**three;
            evaluate(if truth(condition, look)? { then } else { other }, look)?
        }
        Node::Among(of, list) => {
            let of = evaluate(of, look)?;
            for element in list {
                if evaluate(element, look)? == of {
                    return Ok(Value::Truth(true));
                }
            }
            Value::Truth(false)
        }
        Node::Least(list) => fold(list, look, f64::min)?,
        Node::Most(list) => fold(list, look, f64::max)?,
    })
}

fn fold(
    list: &[Node],
    look: &dyn Fn(Name) -> Option<Value>,
    choose: fn(f64, f64) -> f64,
) -> Result<Value, Fault> {
    let mut chosen: Option<f64> = None;
    for node in list {
        let number = number(node, look)?;
        chosen = Some(chosen.map_or(number, |before| choose(before, number)));
    }
    chosen.map(Value::Number).ok_or(Fault::NotANumber)
}

fn number(node: &Node, look: &dyn Fn(Name) -> Option<Value>) -> Result<f64, Fault> {
    match evaluate(node, look)? {
        Value::Number(number) => Ok(number),
        _ => Err(Fault::NotANumber),
    }
}

fn truth(node: &Node, look: &dyn Fn(Name) -> Option<Value>) -> Result<bool, Fault> {
    match evaluate(node, look)? {
        Value::Truth(truth) => Ok(truth),
        _ => Err(Fault::NotANumber),
    }
}

fn binary(
    what: Binary,
    left: &Node,
    right: &Node,
    look: &dyn Fn(Name) -> Option<Value>,
) -> Result<Value, Fault> {
    match what {
        // As CEL has it: a side that decides by itself does so even if the other has no value.
        Binary::And | Binary::Or => {
            let decides = what == Binary::Or;
            let left = truth(left, look);
            if left == Ok(decides) {
                return Ok(Value::Truth(decides));
            }
            let right = truth(right, look)?;
            if right == decides {
                return Ok(Value::Truth(decides));
            }
            left.map(Value::Truth)
        }
        Binary::Equal => Ok(Value::Truth(evaluate(left, look)? == evaluate(right, look)?)),
        Binary::NotEqual => Ok(Value::Truth(evaluate(left, look)? != evaluate(right, look)?)),
        _ => {
            let (a, b) = (number(left, look)?, number(right, look)?);
            let result = match what {
                Binary::Add => a + b,
                Binary::Subtract => a - b,
                Binary::Multiply => a * b,
                Binary::Divide | Binary::Remainder if b == 0.0 => return Err(Fault::DivisionByZero),
                Binary::Divide => a / b,
                Binary::Remainder => a % b,
                Binary::Less => return Ok(Value::Truth(a < b)),
                Binary::LessEqual => return Ok(Value::Truth(a <= b)),
                Binary::Greater => return Ok(Value::Truth(a > b)),
                _ => return Ok(Value::Truth(a >= b)),
            };
            if result.is_finite() { Ok(Value::Number(result)) } else { Err(Fault::NotANumber) }
        }
    }
}
