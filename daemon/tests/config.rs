//! A configuration is whole and right, or the error names file, line, field and what would be right.

use std::{fs, path::PathBuf};

use ladewartd::{
    config::{self, Config, Mode},
    units::Milliamps,
};

const GOOD: &str = r#"[site]
name = "Hof 3"

[uplink]
mode = "socks5"
gateway = "192.0.2.1:8443"
certificate = "cls.pem"
key = "cls.key"
trust = { pin = "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff" }

[backend]
url = "ws://emt.example:9000/ocpp"

[[meter]]
id = "grid"
device = "eastron-sdm630"
address = "10.0.0.5:502"

[[node]]
id = "main"
fuse = "63 A"
meter = "grid"

[[evse]]
id = "left"
identity = "CP-1"
max = "32 A"
phases = "L2 L3 L1"

[[evse]]
id = "right"
max = "16 A"
"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cls.pem"), "").unwrap();
        fs::write(dir.path().join("cls.key"), "").unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("site.toml")
    }

    fn load(&self, text: &str) -> Result<Config, String> {
        fs::write(self.file(), text).unwrap();
        config::load(&self.file()).map(|(config, _)| config).map_err(|e| e.to_string())
    }

    /// The error without the file's name, which it must begin with.
    fn error(&self, text: &str) -> String {
        let error = self.load(text).unwrap_err();
        let file = self.file().display().to_string();
        error.strip_prefix(&file).unwrap_or_else(|| panic!("no file in {error}")).to_owned()
    }
}

#[test]
fn a_good_one_is_taken_with_its_defaults() {
    let config = Place::new().load(GOOD).unwrap();
    assert_eq!(config.evses[0].identity.as_str(), "CP-1");
    assert_eq!(config.evses[1].identity.as_str(), "right", "the id serves as identity");
    assert_eq!(config.evses[1].failsafe, Milliamps::amps(6));
    assert_eq!(config.backend.unwrap().path, "/ocpp/");
    match config.uplink.unwrap().mode {
        Mode::Socks5(gateway) => assert_eq!(gateway.trust.pins[0][1], 0x11),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_mistake_names_its_place_and_its_mend() {
    let place = Place::new();
    let cases = [
        // An unknown field.
        ("max = \"32 A\"", "max = \"32 A\"\ncolour = \"red\"", ":28: evse[0].colour: unknown field `colour`"),
        // A wrong unit, and a bare number.
        (
            "fuse = \"63 A\"",
            "fuse = \"63 kW\"",
            ":21: node[0].fuse: \"63 kW\" is not a current; write it like \"16 A\"",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = 63",
            ":21: node[0].fuse: invalid type: integer `63`, expected a current like \"16 A\"",
        ),
        // Two EVSEs with one identity.
        (
            "id = \"right\"",
            "id = \"right\"\nidentity = \"CP-1\"",
            ":32: evse[1].identity: \"CP-1\" is the identity of EVSE \"left\" already; each needs its own",
        ),
        // A missing file.
        ("key = \"cls.key\"", "key = \"gone.key\"", ":8: uplink.key: "),
        // Dangling names.
        (
            "meter = \"grid\"",
            "meter = \"attic\"",
            ":22: node[0].meter: there is no [[meter]] with id = \"attic\"",
        ),
        (
            "id = \"right\"",
            "id = \"right\"\nnode = \"attic\"",
            ":32: evse[1].node: there is no node \"attic\"; there are main",
        ),
        // A pin that is none.
        ("00:11:22", "zz:11:22", ":9: uplink.trust.pin: is not a SHA-256 fingerprint"),
        // A backend that cannot be meant.
        (
            "ws://emt",
            "http://emt",
            ":12: backend.url: \"http://emt.example:9000/ocpp\" must begin with ws:// or wss://",
        ),
        ("ws://emt", "wss://emt", ": backend.ca: is missing; add ca = \"backend-ca.pem\""),
        // Ranges.
        (
            "max = \"16 A\"",
            "max = \"4 A\"",
            ":32: evse[1].max: 4.0 A is out of range; use 6.0 A to 500 A per phase",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = \"10 A\"",
            ":21: node[0].fuse: the EVSEs' failsafe values add up to 12.0 A on L1",
        ),
        // No node at all.
        ("[[node]]", "[[nodes]]", ":19: nodes[0]: unknown field `nodes`"),
        // Not TOML.
        ("[[node]]", "[[node", ":19: "),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let error = place.error(&GOOD.replacen(from, to, 1));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn a_missing_configuration_is_named() {
    let place = Place::new();
    let error = config::load(&place.file()).unwrap_err().to_string();
    assert!(error.contains("site.toml: cannot be read:"), "{error}");
}
