//! A configuration is whole and right, or the error names file, line, field and what would be right.

mod callers;
mod devices;
mod uplink;

use std::{fs, path::PathBuf};

use ladewartd::{
    config::{self, Config, Mode, OperatorPlace, OperatorTrust, Role},
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
fn the_site_and_its_controller_have_identities_of_their_own() {
    let place = Place::new();
    let with = |lines: &str| GOOD.replace("[[meter]]", &format!("[ocpp]\n{lines}\n[[meter]]"));
    let config = place.load(&with("site = \"S\"\ncontroller = \"C\"")).unwrap();
    assert_eq!(config.ocpp.controller.unwrap().as_str(), "C");
    for (lines, expected) in [
        ("site = \"CP-1\"", "ocpp.site: \"CP-1\" is the identity of an EVSE; choose another"),
        ("controller = \"right\"", "ocpp.controller: \"right\" is the identity of an EVSE; choose another"),
        ("site = \"C\"\ncontroller = \"C\"", "ocpp.controller: is the identity of ocpp.site; choose another"),
    ] {
        let error = place.error(&with(lines));
        assert!(error.contains(expected), "{error}");
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
        // A fuse of nothing, one phase of three, and two values.
        (
            "fuse = \"63 A\"",
            "fuse = \"0 A\"",
            ":21: node[0].fuse: 0.0 A on L1 is out of range; use 6 A to 3000 A",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = [\"63 A\", \"63 A\", \"2 A\"]",
            ":21: node[0].fuse: 2.0 A on L3 is out of range",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = [\"63 A\", \"63 A\"]",
            ":21: node[0].fuse: has 2 values; give one, or one for each of L1, L2, L3",
        ),
        // An EVSE at two nodes.
        (
            "id = \"right\"",
            "id = \"right\"\nnode = [\"main\", \"hall\"]",
            ":32: evse[1].node: names 2 nodes (main, hall); a device stands at one node",
        ),
        // What does not fit the node.
        (
            "fuse = \"63 A\"",
            "fuse = \"63 A\"\nreserve = \"63 A\"",
            ":22: node[0].reserve: 63.0 A is out of range",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = \"63 A\"\ncontract = \"5 W\"",
            ":22: node[0].contract: 5 W is out of range",
        ),
        (
            "fuse = \"63 A\"",
            "fuse = \"63 A\"\nunbalance = \"0 A\"",
            ":22: node[0].unbalance: 0.0 A is out of range",
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

/// Behind [`GOOD`]: a tree, devices, a source. Its first table begins in line 34.
const TREE: &str = r#"
[[node]]
id = "hall"
parent = "yard"
fuse = ["35 A", "35 A", "25 A"]

[[node]]
id = "yard"
parent = "main"
fuse = "50 A"
contract = "30 kW"
reserve = "2 A"

[[device]]
id = "pump"
kind = "heat-pump"
power = "9 kW"
node = "yard"

[[device]]
id = "store"
kind = "storage"
power = "10 kW"
min = "500 W"
setpoint = { address = "10.0.0.8:502", register = 40 }

[[relay]]
id = "k1"
line = { chip = "/dev/gpiochip0", offset = 3 }
function = "release"
device = "pump"

[grid]
return_over = "10 min"

[[grid.source]]
issuer = "cert:dso"
failsafe = "8 kW"
"#;

#[test]
fn a_tree_is_sorted_and_its_devices_are_known() {
    let config = Place::new().load(&[GOOD, TREE].concat()).unwrap();
    let names: Vec<_> = config.nodes.iter().map(|n| (n.id.as_str(), n.parent)).collect();
    assert_eq!(names, [("main", None), ("yard", Some(0)), ("hall", Some(1))]);
    assert_eq!(config.nodes[2].fuse.0, [35, 35, 25].map(Milliamps::amps));
    assert_eq!(config.nodes[0].unbalance, Some(Milliamps::amps(20)), "VDE-AR-N 4100 without being told");
    assert_eq!(config.devices[0].min, config.devices[0].power, "on and off only");
    assert_eq!(config.devices[1].step.0, 100);
    assert_eq!(config.grid.sources[0].timeout.as_secs(), 120);
}

#[test]
fn each_mistake_in_the_tree_names_its_place_and_its_mend() {
    let place = Place::new();
    let cases = [
        (
            "parent = \"main\"",
            "parent = \"hall\"",
            ": node[1].parent: leads round in a circle (hall → yard → hall); the way up must end at \"main\"",
        ),
        ("parent = \"yard\"", "parent = \"hall\"", ": node[1].parent: leads round in a circle (hall → hall)"),
        (
            "parent = \"main\"\n",
            "",
            ": node[2].parent: is missing; only the first node is the grid connection",
        ),
        (
            "parent = \"main\"",
            "parent = \"mian\"",
            ": node[2].parent: there is no node \"mian\"; there are main, hall",
        ),
        (
            "fuse = \"50 A\"",
            "fuse = \"50 A\"\nunbalance = \"20 A\"",
            ": node[2].unbalance: belongs to the first node",
        ),
        (
            "fuse = \"50 A\"",
            "fuse = \"50 A\"\nmeter = \"grid\"",
            ": node[2].meter: \"grid\" measures node \"main\" already; each node needs its own",
        ),
        (
            "power = \"9 kW\"",
            "power = \"40 kW\"",
            ": device[0].power: 40.00 kW is 57.971 A on L1, more than the fuse",
        ),
        ("power = \"9 kW\"", "power = \"9 kW\"\nstep = \"1 kW\"", ": device[0].step: needs setpoint"),
        (
            "register = 40",
            "register = 40, count = \"30 W\"",
            ": device[1].setpoint.count: 30 W does not divide",
        ),
        ("10.0.0.8:502", "10.0.0.8", ": device[1].setpoint.address: \"10.0.0.8\" is not host:port"),
        ("device = \"pump\"", "evse = \"left\"", ": device[0].id: nothing drives \"pump\"; add [[relay]]"),
        (
            "device = \"pump\"",
            "device = \"pomp\"",
            ": relay[0].device: there is no [[device]] with id = \"pomp\"",
        ),
        (
            "min = \"500 W\"",
            "min = \"50 kW\"",
            ": device[1].min: 50.00 kW is out of range; use 0 W to 10.00 kW",
        ),
        ("id = \"store\"", "id = \"pump\"", ": device[1].id: \"pump\" names another device already"),
        ("failsafe = \"8 kW\"", "failsafe = \"-8 kW\"", ": grid.source[0].failsafe: -8.00 kW is negative"),
        ("return_over = \"10 min\"", "return_over = \"10 h\"", ": grid.return_over: 36000s is out of range"),
        (
            "failsafe = \"8 kW\"",
            "failsafe_for = \"1 h\"",
            ": grid.source[0].failsafe_for: 3600s is out of range",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(TREE.contains(from), "{from}");
        let error = place.error(&[GOOD, &TREE.replacen(from, to, 1)].concat());
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn a_missing_configuration_is_named() {
    let place = Place::new();
    let error = config::load(&place.file()).unwrap_err().to_string();
    assert!(error.contains("site.toml: cannot be read:"), "{error}");
}
