//! The pure core stays pure: `site/`, `policy/` and `plan/` know neither a runtime, a clock, I/O, nor any other
//! half of the daemon. Reads the sources, because the compiler does not mind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The rooms that are held to it.
const PURE: [&str; 4] = ["site", "policy", "plan", "rules"];

/// What they may use of this crate.
const ALLOWED: [&str; 12] = [
    "units", "time", "ids", "config", "grid", "site", "policy", "plan", "formula", "rules", "tariff",
    "variable",
];

/// Crates that only give data a shape; neither runs, waits nor looks at anything.
const DATA: [&str; 3] = ["serde", "serde_json", "thiserror"];

/// What they may not use of `std`: clocks, I/O, threads.
const IMPURE: [&str; 9] =
    ["time::Instant", "time::SystemTime", "fs", "net", "io", "env", "process", "thread", "os"];

#[test]
fn the_core_imports_neither_runtime_nor_clock_nor_another_half() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = dependencies(&fs::read_to_string(root.join("Cargo.toml")).unwrap());
    assert!(crates.contains("tokio") && crates.contains("futures_util"), "{crates:?}");
    let mut found = Vec::new();
    let mut files = 0;
    for room in PURE {
        for file in sources(&root.join("src").join(room)) {
            files += 1;
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root).unwrap().display().to_string();
            found.extend(violations(&text, &crates).into_iter().map(|v| format!("{name}: {v}")));
        }
    }
    assert!(files >= PURE.len(), "only {files} files were looked at");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let crates = ["tokio", "tracing", "jiff", "serde_json"].map(str::to_owned).into();
    let found = |text: &str| violations(text, &crates).join("; ");
    for (planted, says) in [
        ("use tokio::sync::mpsc;", "tokio::sync::mpsc"),
        ("use std::{collections::HashMap, time::{Duration, Instant}};", "std::time::Instant"),
        ("use std::time::SystemTime as Now;", "std::time::SystemTime"),
        ("fn f() -> std::time::Instant { std::time::Instant::now() }", "std::time::Instant"),
        ("use std::time::*;", "std::time::*"),
        ("use std::*;", "std::*"),
        ("use crate::{units::Watts, meter::run};", "crate::meter::run"),
        ("use crate::control::Events;", "crate::control::Events"),
        ("use crate::clock::Clock;", "crate::clock::Clock"),
        ("use crate::*;", "crate::*"),
        ("use super::super::api;", "super::super::api"),
        ("fn f() { tracing::info!(\"x\"); }", "tracing::info"),
        ("use ::jiff::Timestamp;", "jiff::Timestamp"),
        ("extern crate tokio as t;", "extern crate"),
        ("async fn f() {}", "async"),
        ("fn f() { g().await }", "await"),
        ("fn f() { let _ = '\"'; tokio::spawn(g()); let _ = '\"'; }", "tokio::spawn"),
        ("#[cfg(test)]\nmod tests { use tokio::time; }\nuse tokio::fs;", "tokio::fs"),
        ("#[cfg(test)]\nmod tests;\nuse tokio::fs;", "tokio::fs"),
        ("#[cfg(test)]\nuse tokio::io;\nuse tokio::fs;", "tokio::fs"),
        ("fn f<'a>(x: &'a str) { tokio::spawn(x) }", "tokio::spawn"),
        ("const X: &str = r#\"\"#; use tokio::fs;", "tokio::fs"),
    ] {
        let found = found(planted);
        assert!(found.contains(says), "not found in {planted:?}: {found:?}");
        assert!(!found.contains("tokio::time") && !found.contains("tokio::io"), "{planted:?}: {found:?}");
    }
    for clean in [
        "use crate::{units::{Watts, Phase}, time::Now, grid::Limit};",
        "use std::{collections::BTreeMap, fmt, time::Duration};",
        "use super::event::{Event, Reading};",
        "pub use self::view::View;",
        "use serde_json::{Value, json};",
        "//! No tokio::spawn here, no std::time::Instant.\n/* use tokio::fs; /* nested */ async */",
        "const WHY: &str = \"use tokio::fs; \\\" async\";",
        "#[cfg(test)]\nmod tests { use tokio::time; #[test] fn t() { if true { } } }",
    ] {
        assert_eq!(found(clean), "", "{clean:?}");
    }
}

/// Every source below a directory that is part of the product: tests may use what they like.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Names of the crates that the manifest lists, as code writes them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.contains("dependencies]");
        } else if inside && let Some(end) = line.find(['.', '=', ' ']) {
            names.insert(line[..end].replace('-', "_"));
        }
    }
    names
}

/// What a source uses that it may not.
fn violations(text: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let tokens = without_tests(&tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            word @ ("async" | "await") => found.push(format!("{word}: the core does not wait")),
            "extern" if tokens.get(at + 1).is_some_and(|t| t == "crate") => {
                found.push("extern crate: the core stands alone".to_owned());
            }
            "use" => {
                let end = tokens[at..].iter().position(|t| t == ";").map_or(tokens.len(), |n| at + n);
                let mut paths = Vec::new();
                tree(&tokens[at + 1..end], &[], &mut paths);
                found.extend(paths.iter().filter_map(|p| judge(p, crates)));
                at = end;
            }
            word if is_word(word) && (at == 0 || tokens[at - 1] != "::") => {
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|t| t == "::")
                    && tokens.get(at + 2).is_some_and(|t| is_word(t))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                if path.len() > 1 {
                    found.extend(judge(&path, crates));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths of a `use` tree, `a::{b, c::*}` → `a::b`, `a::c::*`.
fn tree(tokens: &[String], prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => {
                let (mut depth, mut from) = (0, at + 1);
                for (i, token) in tokens.iter().enumerate().skip(at) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if (depth == 1 && token == ",") || depth == 0 {
                        tree(&tokens[from..i], &path, paths);
                        from = i + 1;
                    }
                    if depth == 0 {
                        return;
                    }
                }
                return;
            }
            "as" => break,
            "::" => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    if path.len() > prefix.len() {
        paths.push(path);
    }
}

/// Why a path may not stand there, if it may not.
fn judge(path: &[String], crates: &BTreeSet<String>) -> Option<String> {
    let shown = path.join("::");
    let second = path.get(1).map_or("", String::as_str);
    let wrong = match path[0].as_str() {
        "crate" => !ALLOWED.contains(&second),
        "super" => {
            let rest = path.iter().find(|p| *p != "super").map_or("", String::as_str);
            second == "super" && !ALLOWED.contains(&rest)
        }
        "std" | "core" | "alloc" => {
            let inner = path[1..].join("::");
            let within = |p: &&str| inner == **p || inner.starts_with(&format!("{p}::"));
            inner == "*" || inner == "time::*" || IMPURE.iter().any(within)
        }
        name => crates.contains(name) && !DATA.contains(&name),
    };
    wrong.then(|| {
        format!("{shown}: the core may use std without clocks and I/O, and crate::{{{}}}", ALLOWED.join(", "))
    })
}

/// Words and punctuation of a source, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let next = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        match c {
            '/' if next(i + 1) == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if next(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (chars[i], next(i + 1)) {
                        ('/', '*') => depth += 1,
                        ('*', '/') => depth -= 1,
                        _ => {
                            i += 1;
                            continue;
                        }
                    }
                    i += 2;
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => i = after_string(&chars, i),
            '\'' if next(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if next(i + 2) == '\'' => i += 3,
            _ if c.is_alphabetic() || c == '_' => {
                let from = i;
                while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_') {
                    i += 1;
                }
                let word: String = chars[from..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                if matches!(word.as_str(), "r" | "br" | "cr") && next(i + hashes) == '"' {
                    let close: Vec<char> =
                        std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    i += hashes + 1;
                    while i < chars.len() && !chars[i..].starts_with(&close) {
                        i += 1;
                    }
                    i += close.len();
                } else {
                    tokens.push(word);
                }
            }
            ':' if next(i + 1) == ':' => {
                tokens.push("::".to_owned());
                i += 2;
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    tokens
}

fn after_string(chars: &[char], open: usize) -> usize {
    let mut i = open + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Without the items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept: Vec<String> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(MARK.len()).eq(MARK) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        // To the end of the item: its closing brace, or a semicolon outside braces.
        let mut depth = 0_usize;
        while at < tokens.len() {
            let token = tokens[at].as_str();
            at += 1;
            match token {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}
