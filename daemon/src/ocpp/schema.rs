//! Payloads against the official JSON schemas, where the configuration wants it (G-19: by default the other side judges).
//!
//! In: a directory with the schemas as the Open Charge Alliance hands them out, a version, an action, a payload. Out:
//! what is wrong with the payload, and by which error it is refused. Invariant: a schema with a keyword that is not
//! understood here is refused at the start, so that nothing is checked less than it seems.
//!
//! The files are read from a directory that the owner of the site names: their licence (CC BY-ND 4.0) lets them be
//! handed on unchanged only, editions change without us, and a general validator would be forty crates for the dozen
//! keywords that they use.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use serde_json::Value;

use super::Version;
use crate::time::Wall;

/// A type and what it must keep to.
#[derive(Debug)]
enum Rule {
    Object { members: BTreeMap<String, Ref>, required: Vec<String>, open: bool },
    Array { item: Option<Ref>, least: usize, most: usize },
    Text { most: usize, among: Vec<String>, is_time: bool },
    Number { whole: bool, least: f64, most: f64, step: Option<f64> },
    Boolean,
    Any,
}

/// A rule of its own, or one of the file's definitions.
#[derive(Debug)]
enum Ref {
    Own(Box<Rule>),
    Named(String),
}

#[derive(Debug)]
struct Schema {
    root: Ref,
    definitions: BTreeMap<String, Ref>,
}

/// What is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The member, e.g. `meterValue[0].sampledValue`.
    pub(crate) place: String,
    /// In words.
    pub(crate) what: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Missing,
    Type,
    Value,
    Extra,
}

impl Violation {
    /// The error that names it (1.6-J §4.2.3, 2.0.1 Part 4 §4.3); 1.6 has one of them misspelt.
    pub(crate) fn code(&self, version: Version) -> &'static str {
        match (self.kind, version) {
            (Kind::Unknown, _) => "NotImplemented",
            (Kind::Missing, Version::V16) => "OccurenceConstraintViolation",
            (Kind::Missing, _) => "OccurrenceConstraintViolation",
            (Kind::Type, _) => "TypeConstraintViolation",
            (Kind::Value, _) => "PropertyConstraintViolation",
            (Kind::Extra, version) => version.format_violation(),
        }
    }
}

/// The schemas of every version that the directory has.
#[derive(Debug, Default)]
pub struct Schemas(HashMap<(Version, String), Schema>);

impl Schemas {
    /// Reads `1.6`, `2.0.1` and `2.1` (or `v16`, `v201`, `v21`) under a directory, as far as they are there.
    /// Errors: a sentence that names the file.
    pub fn load(directory: &Path) -> Result<Arc<Self>, String> {
        let mut all = HashMap::new();
        for version in Version::ALL {
            let names = [version.name().to_owned(), format!("v{}", version.name().replace('.', ""))];
            let Some(place) = names.iter().map(|n| directory.join(n)).find(|p| p.is_dir()) else {
                continue;
            };
            let place = if place.join("schemas").is_dir() { place.join("schemas") } else { place };
            let wrong = |path: &Path, why: String| format!("{}: {why}", path.display());
            for entry in std::fs::read_dir(&place).map_err(|e| wrong(&place, e.to_string()))? {
                let path = entry.map_err(|e| wrong(&place, e.to_string()))?.path();
                let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".json")) else {
                    continue;
                };
                let text = std::fs::read_to_string(&path).map_err(|e| wrong(&path, e.to_string()))?;
                let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
                    .map_err(|e| wrong(&path, e.to_string()))?;
                let schema = schema(&value).map_err(|why| wrong(&path, why))?;
                all.insert((version, name.strip_suffix("Request").unwrap_or(name).to_owned()), schema);
            }
        }
        if all.is_empty() {
            return Err(format!("{} holds no schemas under 1.6, 2.0.1 or 2.1", directory.display()));
        }
        Ok(Arc::new(Self(all)))
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: an empty directory is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a CALL. What there are no schemas of at all passes.
    pub(crate) fn call(&self, version: Version, name: &str, payload: &str) -> Result<(), Violation> {
        let wrong = |what, kind| Violation { place: String::new(), what, kind };
        let Some(schema) = self.0.get(&(version, name.to_owned())) else {
            let known = self.0.keys().any(|(v, _)| *v == version);
            return if known { Err(wrong("is no action of this version", Kind::Unknown)) } else { Ok(()) };
        };
        let value: Value =
            serde_json::from_str(payload).map_err(|_| wrong("is not valid JSON", Kind::Extra))?;
        schema.judge(&schema.root, &value, &mut String::new())
    }
}

impl Schemas {
    /// Checks the payload of a CALLRESULT. What there is no schema of passes.
    pub(crate) fn answer(&self, version: Version, action: &str, payload: &str) -> Result<(), Violation> {
        let name = format!("{action}Response");
        if self.0.contains_key(&(version, name.clone())) {
            self.call(version, &name, payload)
        } else {
            Ok(())
        }
    }
}

const HEADS: &[&str] =
    &["$schema", "$id", "id", "title", "description", "comment", "javaType", "default", "definitions"];

fn schema(value: &Value) -> Result<Schema, String> {
    let mut definitions = BTreeMap::new();
    for (name, definition) in value["definitions"].as_object().into_iter().flatten() {
        definitions.insert(name.clone(), reference(definition)?);
    }
    Ok(Schema { root: reference(value)?, definitions })
}

fn reference(value: &Value) -> Result<Ref, String> {
    if let Some(target) = value["$ref"].as_str() {
        let name = target
            .strip_prefix("#/definitions/")
            .ok_or_else(|| format!("$ref {target:?} leads elsewhere"))?;
        return Ok(Ref::Named(name.to_owned()));
    }
    Ok(Ref::Own(Box::new(rule(value)?)))
}

fn rule(value: &Value) -> Result<Rule, String> {
    let number = |name: &str, default: f64| value[name].as_f64().unwrap_or(default);
    let count = |name: &str, default: usize| {
        value[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    let kind = value["type"].as_str();
    let own: &[&str] = match kind {
        Some("object") => &["properties", "required", "additionalProperties"],
        Some("array") => &["items", "additionalItems", "minItems", "maxItems"],
        Some("string") => &["maxLength", "enum", "format"],
        Some("integer" | "number") => &["minimum", "maximum", "multipleOf"],
        Some("boolean") | None => &[],
        Some(other) => return Err(format!("the type {other:?} is not understood")),
    };
    for name in value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()) {
        if name != "type" && !own.contains(&name) && !HEADS.contains(&name) {
            return Err(format!("the keyword {name:?} is not understood"));
        }
    }
    Ok(match kind {
        Some("object") => {
            let mut members = BTreeMap::new();
            for (name, member) in value["properties"].as_object().into_iter().flatten() {
                members.insert(name.clone(), reference(member)?);
            }
            let required = value["required"].as_array().into_iter().flatten();
            Rule::Object {
                members,
                required: required.filter_map(|r| r.as_str().map(str::to_owned)).collect(),
                open: value["additionalProperties"] != false,
            }
        }
        Some("array") => Rule::Array {
            item: value.get("items").map(reference).transpose()?,
            least: count("minItems", 0),
            most: count("maxItems", usize::MAX),
        },
        Some("string") => Rule::Text {
            most: count("maxLength", usize::MAX),
            among: value["enum"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|e| Some(e.as_str()?.to_owned()))
                .collect(),
            is_time: value["format"] == "date-time",
        },
        Some("integer" | "number") => Rule::Number {
            whole: kind == Some("integer"),
            least: number("minimum", f64::NEG_INFINITY),
            most: number("maximum", f64::INFINITY),
            step: value["multipleOf"].as_f64(),
        },
        Some("boolean") => Rule::Boolean,
        _ => Rule::Any,
    })
}

impl Schema {
    fn judge(&self, rule: &Ref, value: &Value, place: &mut String) -> Result<(), Violation> {
        let rule = match rule {
            Ref::Own(rule) => rule,
            Ref::Named(name) => match self.definitions.get(name) {
                Some(Ref::Own(rule)) => rule,
                _ => return Ok(()),
            },
        };
        let wrong = |what: &'static str, kind: Kind| Err(Violation { place: place.clone(), what, kind });
        match (&**rule, value) {
            (Rule::Any, _) | (Rule::Boolean, Value::Bool(_)) => Ok(()),
            (Rule::Object { members, required, open }, Value::Object(given)) => {
                for name in required {
                    if !given.contains_key(name) {
                        return at(place, name, |place| {
                            Err(Violation { place: place.clone(), what: "is missing", kind: Kind::Missing })
                        });
                    }
                }
                for (name, value) in given {
                    match members.get(name) {
                        Some(rule) => at(place, name, |place| self.judge(rule, value, place))?,
                        None if *open => {}
                        None => {
                            return at(place, name, |place| {
                                Err(Violation {
                                    place: place.clone(),
                                    what: "is not known",
                                    kind: Kind::Extra,
                                })
                            });
                        }
                    }
                }
                Ok(())
            }
            (Rule::Array { item, least, most }, Value::Array(list)) => {
                if list.len() < *least || list.len() > *most {
                    return wrong("has too few or too many elements", Kind::Missing);
                }
                for (n, value) in list.iter().enumerate() {
                    if let Some(rule) = item {
                        at(place, &format!("[{n}]"), |place| self.judge(rule, value, place))?;
                    }
                }
                Ok(())
            }
            (Rule::Text { most, among, is_time }, Value::String(text)) => {
                if text.chars().count() > *most {
                    return wrong("is too long", Kind::Value);
                }
                if !among.is_empty() && !among.contains(text) {
                    return wrong("is none of the known words", Kind::Value);
                }
                if *is_time && Wall::parse(text).is_none() {
                    return wrong("is not a time", Kind::Value);
                }
                Ok(())
            }
            (Rule::Number { whole, least, most, step }, Value::Number(number)) => {
                let value = number.as_f64().unwrap_or(f64::NAN);
                if *whole && value.fract() != 0.0 {
                    return wrong("is not a whole number", Kind::Type);
                }
                if !(*least..=*most).contains(&value) {
                    return wrong("is out of range", Kind::Value);
                }
                let odd = |step: f64| ((value / step) - (value / step).round()).abs() > 1e-6;
                if step.is_some_and(odd) {
                    return wrong("has too many decimals", Kind::Value);
                }
                Ok(())
            }
            _ => wrong("has the wrong type", Kind::Type),
        }
    }
}

fn at<T>(place: &mut String, name: &str, judge: impl FnOnce(&mut String) -> T) -> T {
    let before = place.len();
    if before > 0 && !name.starts_with('[') {
        place.push('.');
    }
    place.push_str(name);
    let outcome = judge(place);
    place.truncate(before);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form of the official files, of our own making.
    const SCHEMA: &str = r##"{"$schema":"x","definitions":{"Kind":{"type":"string","enum":["A","B"]},
        "Part":{"type":"object","properties":{"kind":{"$ref":"#/definitions/Kind"},"n":{"type":"integer","minimum":0},
        "limit":{"type":"number","multipleOf":0.1}},"required":["kind"],"additionalProperties":false}},
        "type":"object","properties":{"parts":{"type":"array","items":{"$ref":"#/definitions/Part"},"minItems":1},
        "at":{"type":"string","format":"date-time"},"name":{"type":"string","maxLength":3},"yes":{"type":"boolean"}},
        "required":["parts"],"additionalProperties":false}"##;

    #[test]
    fn each_violation_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("2.0.1")).unwrap();
        std::fs::write(dir.path().join("2.0.1/ThingRequest.json"), SCHEMA).unwrap();
        let schemas = Schemas::load(dir.path()).unwrap();
        let check = |payload: &str| schemas.call(Version::V201, "Thing", payload).err();
        for good in [
            r#"{"parts":[{"kind":"A"}]}"#,
            r#"{"parts":[{"kind":"B","n":3.0,"limit":6.1}],"at":"2026-11-23T12:00:00+01:00","name":"äöü","yes":true}"#,
        ] {
            assert_eq!(check(good), None, "{good}");
        }
        for (bad, place, code) in [
            (r"{}", "parts", "OccurrenceConstraintViolation"),
            (r#"{"parts":[]}"#, "parts", "OccurrenceConstraintViolation"),
            (r#"{"parts":{}}"#, "parts", "TypeConstraintViolation"),
            (r#"{"parts":[{"kind":"C"}]}"#, "parts[0].kind", "PropertyConstraintViolation"),
            (r#"{"parts":[{"kind":"A","n":-1}]}"#, "parts[0].n", "PropertyConstraintViolation"),
            (r#"{"parts":[{"kind":"A","n":1.5}]}"#, "parts[0].n", "TypeConstraintViolation"),
            (r#"{"parts":[{"kind":"A","limit":6.15}]}"#, "parts[0].limit", "PropertyConstraintViolation"),
            (r#"{"parts":[{"kind":"A"}],"at":"yesterday"}"#, "at", "PropertyConstraintViolation"),
            (r#"{"parts":[{"kind":"A"}],"name":"long"}"#, "name", "PropertyConstraintViolation"),
            (r#"{"parts":[{"kind":"A"}],"more":1}"#, "more", "FormatViolation"),
            (r#"{"parts":[{"kind":"A"}],"yes":"true"}"#, "yes", "TypeConstraintViolation"),
        ] {
            let violation = check(bad).unwrap();
            assert_eq!((violation.place.as_str(), violation.code(Version::V201)), (place, code), "{bad}");
        }
        assert_eq!(
            schemas.call(Version::V201, "Other", "{}").unwrap_err().code(Version::V201),
            "NotImplemented"
        );
        assert_eq!(schemas.call(Version::V16, "Other", "{}"), Ok(()), "no schemas of this version");
    }

    #[test]
    fn what_is_not_understood_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Schemas::load(dir.path()).is_err());
        std::fs::create_dir(dir.path().join("v16")).unwrap();
        std::fs::write(dir.path().join("v16/A.json"), r#"{"type":"object","patternProperties":{}}"#).unwrap();
        assert!(Schemas::load(dir.path()).unwrap_err().contains("patternProperties"));
    }
}
