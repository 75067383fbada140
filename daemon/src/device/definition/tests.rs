//! The SDM630's file, and every way to get it wrong.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::device::catalog::BUILT_IN;

fn sdm630() -> &'static str {
    BUILT_IN.iter().find(|(name, _)| *name == "eastron-sdm630").unwrap().1
}

fn parse(text: &str) -> Result<Definition, ConfigError> {
    Definition::parse(&Source::new(PathBuf::from("mine.toml"), text.to_owned()))
}

/// The SDM630 with one line changed; the error's text.
fn wrong(from: &str, to: &str) -> String {
    let text = sdm630();
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_sdm630_is_read_in_one_request() {
    let d = parse(sdm630()).unwrap();
    assert_eq!(d.blocks.len(), 1);
    assert_eq!((d.blocks[0].start, d.blocks[0].count), (0, 76));
    assert_eq!(d.blocks[0].function, Function::Input);
    assert_eq!(d.window(Kind::Voltage), Some(Window { min: 0.0, max: 300.0 }));
}

/// What is replaced by what, a text of the line that must be named, and what must be said.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("about =", "abuot =", "abuot =", "unknown field `abuot`"),
    (
        "type = \"f32\", unit = \"V\"",
        "type = \"f16\", unit = \"V\"",
        "\"voltage-l1\"",
        "unknown variant `f16`",
    ),
    ("quantity = \"voltage-l2\"", "quantity = \"volts\"", "volts", "unknown variant `volts`"),
    (
        "0x0048, type",
        "0x004B, type",
        "0x004B, type",
        "block[0].field[11].register: a f32 at 0x004B is not within its block, 0x0000 to 0x004B",
    ),
    (
        "0x0046, type",
        "0x0100, type",
        "0x0100, type",
        "block[0].field[10].register: a f32 at 0x0100 is not within its block",
    ),
    (
        "0x0002, type",
        "0x0001, type",
        "0x0001, type",
        "block[0].field[1].register: 0x0001 is part of voltage-l1 already",
    ),
    ("\"voltage-l2\"", "\"voltage-l1\"", "0x0002", "block[0].field[1].quantity: voltage-l1 is there already"),
    (
        "unit = \"Hz\"",
        "unit = \"V\"",
        "\"frequency\"",
        "block[0].field[10].unit: V is not a unit of frequency; its base is Hz",
    ),
    (
        "unit = \"Hz\"",
        "unit = \"Hz\", scale = 0",
        "\"frequency\"",
        "block[0].field[10].scale: 0 is not a scale",
    ),
    ("unit = \"Hz\"", "unit = \"Hz\", invalid = \"FF\"", "\"frequency\"", "write 8 hexadecimal digits"),
    (
        "count = 76",
        "count = 81",
        "count = 81",
        "block[0].count: 81 is out of range; this device gives 1 to 80",
    ),
    ("count = 76", "count = 0", "count = 0", "block[0].count: 0 is out of range"),
    (
        "function = 4\nstart",
        "function = 6\nstart",
        "function = 6",
        "block[0].function: 6 does not read registers; use 3",
    ),
    (
        "max_registers = 80",
        "max_registers = 200",
        "max_registers = 200",
        "limits.max_registers: 200 is out of range",
    ),
    (
        "voltage = { min = 0.0,",
        "voltage = { min = 400.0,",
        "voltage = {",
        "plausible.voltage: 400 to 300 is not a window",
    ),
    (
        "energy = { min",
        "# energy = { min",
        "[plausible]",
        "plausible.energy: is missing; import is read, so say what is plausible in Wh",
    ),
    (
        "name = \"eastron-sdm630\"",
        "name = \"Eastron SDM\"",
        "name =",
        "name: \"Eastron SDM\" is not a device name",
    ),
];

#[test]
fn errors_name_file_line_field_and_the_remedy() {
    for &(from, to, place, says) in MISTAKES {
        let error = wrong(from, to);
        let changed = sdm630().replacen(from, to, 1);
        let line = changed.lines().position(|l| l.contains(place)).unwrap() + 1;
        assert!(error.contains(says), "{error}\n  lacks {says}");
        assert!(error.starts_with(&format!("mine.toml:{line}:")), "{error}\n  is at line {line}");
    }
}

#[test]
fn overlapping_blocks_and_torn_readings_are_refused() {
    let more = |text: &str| parse(&format!("{}\n{text}", sdm630())).unwrap_err().to_string();
    let error = more("[[block]]\nfunction = 4\nstart = 0x004B\ncount = 2\nfield = []\n");
    assert!(
        error.contains("block[1].start: 0x004B to 0x004C overlaps block[0], 0x0000 to 0x004B"),
        "{error}"
    );
    let error = more("[[block]]\nfunction = 4\nstart = 0xFFFF\ncount = 2\nfield = []\n");
    assert!(error.contains("go beyond 0xFFFF"), "{error}");
    let error = more("[[block]]\nfunction = 3\nstart = 0x0000\ncount = 2\nfield = []\n");
    assert!(error.contains("block[1].field: is empty"), "{error}");

    let apart = sdm630().replacen(
        "    { quantity = \"power-l3\", register = 0x0010, type = \"f32\", unit = \"W\" },\n",
        "",
        1,
    );
    let error = parse(&apart).unwrap_err().to_string();
    assert!(error.contains("power-l3 is missing; a meter needs it for every phase"), "{error}");
    let apart = format!(
        "{apart}\n[[block]]\nfunction = 3\nstart = 0x0010\ncount = 2\nfield = [{{ quantity = \"power-l3\", register = 0x0010, type = \"f32\", unit = \"W\" }}]\n"
    );
    let error = parse(&apart).unwrap_err().to_string();
    assert!(error.contains("power-l3 is not in the block of current-l1"), "{error}");
}

proptest! {
    /// Whatever a file holds: a definition whose fields lie in their blocks, or an error with the file's name.
    #[test]
    fn no_file_breaks_the_reader(
        at in 0..sdm630().len(),
        length in 0..200_usize,
        put in prop_oneof!["[ -~\\n]{0,12}", (0_i64..70_000).prop_map(|n| n.to_string())],
    ) {
        let (start, end) = (at, (at + length).min(sdm630().len()));
        match parse(&format!("{}{put}{}", &sdm630()[..start], &sdm630()[end..])) {
            Ok(d) => {
                for block in &d.blocks {
                    for field in &block.fields {
                        let last = field.register + (field.form.registers() - 1);
                        prop_assert!(block.registers().contains(&field.register) && block.registers().contains(&last));
                    }
                }
            }
            Err(error) => prop_assert!(error.to_string().starts_with("mine.toml:"), "{error}"),
        }
    }
}

fn shipped(name: &str) -> &'static str {
    BUILT_IN.iter().find(|(n, _)| *n == name).unwrap().1
}

/// The definition, what is replaced by what, a text of the line that must be named, and what must be said.
const TOLD_MISTAKES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "shelly-pro-3em",
        "pointer = \"/a_voltage\"",
        "pointer = \"a_voltage\"",
        "\"a_voltage\"",
        "request[0].value[0].pointer: \"a_voltage\" is not a JSON pointer",
    ),
    (
        "shelly-pro-3em",
        "\"/b_voltage\", unit = \"V\"",
        "\"/b_voltage\", unit = \"A\"",
        "/b_voltage",
        "request[0].value[1].unit: A is not a unit of voltage-l2; its base is V",
    ),
    (
        "shelly-pro-3em",
        "\"/b_voltage\", unit = \"V\"",
        "\"/b_voltage\", unit = \"V\", invalid = [[1]]",
        "/b_voltage",
        "request[0].value[1].invalid: is not one value",
    ),
    (
        "shelly-pro-3em",
        "\"voltage-l2\"",
        "\"voltage-l1\"",
        "/b_voltage",
        "request[0].value[1].quantity: voltage-l1 is there already",
    ),
    (
        "shelly-pro-3em",
        "path = \"/rpc/EM.",
        "path = \"http://x/rpc/EM.",
        "http://x",
        "request[0].path: \"http://x/rpc/EM.GetStatus?id=0\" is not a path",
    ),
    (
        "shelly-pro-3em",
        "path = \"/rpc/EM.",
        "topic = \"/rpc/EM.",
        "[[request]]",
        "request[0].path: is missing, or topic stands beside it",
    ),
    (
        "shelly-pro-3em",
        "timeout_ms = 2000",
        "timeout_ms = 0",
        "timeout_ms = 0",
        "answer.timeout_ms: 0 is out of range; use 50 to 10000",
    ),
    (
        "shelly-pro-3em",
        "protocol = \"http\"",
        "protocol = \"mqtt\"",
        "[[request]]",
        "request: goes with another protocol; write [[message]]",
    ),
    (
        "shelly-pro-3em",
        "    { quantity = \"power-l3\", pointer = \"/c_act_power\", unit = \"W\" },\n",
        "",
        "[[request]]",
        "request: power-l3 is missing; a meter needs it for every phase",
    ),
    (
        "shelly-pro-3em-mqtt",
        "\"status/em:0\"",
        "\"status/#\"",
        "status/#",
        "message[0].topic: \"status/#\" is not a topic below the device's own",
    ),
    (
        "shelly-switch",
        "expires_s = 15",
        "expires_s = 0",
        "expires_s = 0",
        "switch.expires_s: 0 is out of range; use 5 to 600: a switch opens by itself",
    ),
    (
        "shelly-switch",
        "on = true, off = false }",
        "on = true, off = true }",
        "read =",
        "switch.read.off: is what on is",
    ),
    ("shelly-switch", "kind = \"switch\"", "kind = \"meter\"", "", "request: is missing"),
    (
        "shelly-switch",
        "protocol = \"http\"",
        "protocol = \"sml\"",
        "protocol = \"sml\"",
        "protocol: switches nothing; use http or mqtt",
    ),
    (
        "shelly-switch-mqtt",
        "off = { topic = \"rpc\", body",
        "off = { topic = \"rpc\" } # body",
        "off = {",
        "switch.off.body: is missing; say what is sent to the topic",
    ),
];

#[test]
fn errors_of_http_and_mqtt_name_file_line_field_and_the_remedy() {
    for &(name, from, to, place, says) in TOLD_MISTAKES {
        assert!(shipped(name).contains(from), "{name}: {from}");
        let changed = shipped(name).replacen(from, to, 1);
        let error = parse(&changed).unwrap_err().to_string();
        assert!(error.contains(says), "{error}\n  lacks {says}");
        if let Some(line) = changed.lines().position(|l| !place.is_empty() && l.contains(place)) {
            let at = [format!("mine.toml:{}:", line + 1), "mine.toml: ".to_owned()];
            assert!(at.iter().any(|at| error.starts_with(at)), "{error}\n  is at line {}", line + 1);
        }
    }
}

#[test]
fn currents_and_powers_come_from_one_document() {
    let text = shipped("shelly-pro-3em")
        .replacen("    { quantity = \"power-l3\", pointer = \"/c_act_power\", unit = \"W\" },\n", "", 1)
        .replacen(
            "\"import\", pointer",
            "\"power-l3\", pointer = \"/c\", unit = \"W\" },\n    { quantity = \"import\", pointer",
            1,
        );
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.contains("power-l3 is not in the document of current-l1"), "{error}");
}
