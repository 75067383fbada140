use proptest::prelude::*;

use super::*;

struct Names;

impl Scope for Names {
    fn resolve(&self, path: &[String]) -> Option<(Name, Unit)> {
        Some(match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["AVAIL"] => (Name::Variable(0), Unit::Percent),
            ["N"] => (Name::Variable(1), Unit::None),
            ["meter", "grid-1", "power"] => (Name::Meter(0, MeterField::Power), Unit::Watts),
            ["meter", "grid-1", "l1"] => (Name::Meter(0, MeterField::Current(0)), Unit::Amps),
            ["contact", "w4"] => (Name::Contact(0), Unit::Truth),
            ["price"] => (Name::Price, Unit::Price),
            ["level"] => (Name::Level, Unit::Text),
            _ => return None,
        })
    }

    fn known(&self) -> Vec<String> {
        vec!["AVAIL".into(), "meter.grid-1.power".into()]
    }
}

fn look(name: Name) -> Option<Value> {
    Some(match name {
        Name::Variable(0) => Value::Number(62.5),
        Name::Variable(1) => Value::Number(0.0),
        Name::Meter(0, MeterField::Power) => Value::Number(-1500.0),
        Name::Contact(0) => Value::Truth(true),
        Name::Price => Value::Number(8.62),
        Name::Level => Value::Text("low".into()),
        _ => return None,
    })
}

fn compiled(text: &str, unit: Unit) -> Result<Formula, FormulaError> {
    Formula::compile(text, &Names, unit)
}

#[test]
fn what_stands_in_the_field_works_as_written() {
    let watts = |text| compiled(text, Unit::Watts).unwrap().number(&look);
    assert_eq!(watts("55000 * AVAIL / 100"), Ok(34_375.0));
    assert_eq!(watts("55000 * AVAIL / 100 - meter[\"grid-1\"].power"), Ok(35_875.0));
    assert_eq!(watts("min(11000, max(4200, 7 / 2 * 1000))"), Ok(4200.0));
    assert_eq!(watts("contact.w4 ? 4200 : 55000"), Ok(4200.0));
    assert_eq!(watts("N == 0 ? 1 : 100 / N"), Ok(1.0), "the side that is not taken is not computed");
    let amps = compiled("meter[\"grid-1\"].l1 * 2", Unit::Amps).unwrap();
    assert_eq!(amps.number(&look), Err(Fault::Missing("meter.grid-1.l1".into())));
    let holds = |text| compiled(text, Unit::Truth).unwrap().holds(&look);
    assert_eq!(holds("price < 10.0 && level == \"low\""), Ok(true));
    assert_eq!(holds("!(level in [\"normal\", \"high\"])"), Ok(true));
    assert_eq!(holds("contact.w4 || 1 / N > 0"), Ok(true), "CEL: one side decides");
    assert_eq!(holds("1 / N > 0 || contact.w4"), Ok(true));
    assert_eq!(holds("1 / N > 0 && contact.w4"), Err(Fault::DivisionByZero));
}

#[test]
fn what_is_wrong_is_said_when_the_site_is_configured() {
    for (text, unit, says) in [
        ("55000 * AVIAL / 100", Unit::Watts, "there is no \"AVIAL\" on this site; there are AVAIL"),
        ("meter.grid.power", Unit::Watts, "there is no \"meter.grid.power\""),
        ("10000 / 0", Unit::Watts, "divides by zero"),
        ("10000 % (3 - 3)", Unit::Watts, "divides by zero"),
        ("meter[\"grid-1\"].power + AVAIL", Unit::Watts, "units do not fit: W plus %"),
        ("meter[\"grid-1\"].l1", Unit::Watts, "the result is A, but W is wanted"),
        ("price * meter[\"grid-1\"].power", Unit::Watts, "ct/kWh times W"),
        ("level == 1", Unit::Truth, "a text is compared with"),
        ("AVAIL", Unit::Truth, "the result is %, but a condition is wanted"),
        ("contact.w4 + 1", Unit::Watts, "a condition stands where a number is wanted"),
        ("contact.w4 ? 1 : level", Unit::Watts, "the choice is between"),
        ("55000 * ", Unit::Watts, "is not an expression"),
        ("", Unit::Watts, "is not an expression"),
        ("[1, 2].exists(x, x > 1)", Unit::Truth, "costs too much"),
        ("[1, 2]", Unit::Watts, "a list"),
        ("{\"a\": 1}", Unit::Watts, "a map"),
        ("now()", Unit::Watts, "now() with 0 arguments is not possible"),
        ("pow(2, 3)", Unit::Watts, "the call pow() is not possible"),
        ("\"a\".size()", Unit::Watts, "is not possible"),
        ("null", Unit::Watts, "null"),
        ("has(meter.x)", Unit::Truth, "is not possible"),
    ] {
        let error = compiled(text, unit).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_rule_that_costs_too_much_is_refused() {
    let long = format!("1{}", " + 1".repeat(300));
    let many = vec!["1"; 150].join("+");
    let deep = format!("{}1{}", "(".repeat(400), ")".repeat(400));
    let signs = format!("{}1", "-".repeat(500));
    let choices = format!("{}1", "contact.w4 ? 1 : ".repeat(50));
    for text in [&long, &many, &deep, &signs] {
        let error = compiled(text, Unit::Watts).expect_err("too costly").to_string();
        assert!(error.contains("costs too much"), "{error}");
    }
    if let Ok(formula) = compiled(&choices, Unit::Watts) {
        assert!(formula.cost() <= NODES);
    }
    assert_eq!(compiled("1 + 2 * 3", Unit::Watts).unwrap().cost(), 5);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-+*/%()\\[\\]{}?:!<>=&|.,\"' a-zA-Z0-9]{0,60}") {
        if let Ok(formula) = compiled(&text, Unit::Watts) {
            let _ = formula.number(&look);
        }
    }

    #[test]
    fn sums_and_products_are_those_of_numbers(a in -1000..1000_i32, b in -1000..1000_i32, c in 1..1000_i32) {
        let text = format!("({a}) + ({b}) * ({c}) / 7");
        let exact = f64::from(a) + f64::from(b) * f64::from(c) / 7.0;
        prop_assert_eq!(compiled(&text, Unit::Watts).unwrap().number(&look), Ok(exact));
    }
}
