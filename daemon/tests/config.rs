//! A configuration is whole and right, or the error names file, line, field and what would be right.

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

/// Behind [`GOOD`]: who administers the site. Its first table begins in line 34.
const ACCESS: &str = r#"
[api.lan]
listen = "192.0.2.7:8884"
certificate = "cls.pem"
key = "cls.key"
ca = "cls.pem"

[[api.certificate]]
fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
name = "dso"
role = "grid"

[[api.certificate]]
uri = "urn:example:boss"
role = "admin"

[[operator]]
name = "north"
address = "north.example:443"
pin = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
certificate = "cls.pem"
key = "cls.key"
roles = ["grid"]

[[operator]]
name = "south"
address = "[2001:db8::1]:443"
ca = "cls.pem"
server_name = "south.example"
certificate = "cls.pem"
key = "cls.key"
roles = ["admin", "viewer"]
"#;

/// An uplink where the gateway connects to us, and who comes in there.
const COMING: &str = r#"
[site]
name = "Hof 3"

[uplink]
mode = "listen"
listen = "192.0.2.7"
certificate = "cls.pem"
key = "cls.key"
trust = { ca = "cls.pem" }

[[uplink.target]]
name = "backend"
port = 9000

[[uplink.target]]
name = "admin"
port = 9001

[backend]
url = "ws://emt.example/ocpp"
target = "backend"

[[api.certificate]]
uri = "urn:example:boss"
role = "admin"

[[operator]]
name = "north"
target = "admin"
ca = "cls.pem"
certificate = "cls.pem"
key = "cls.key"
roles = ["admin"]

[[node]]
id = "main"
fuse = "63 A"
"#;

#[test]
fn an_operator_comes_in_where_the_gateway_connects() {
    let place = Place::new();
    let config = place.load(COMING).unwrap();
    assert_eq!(config.operators[0].place, OperatorPlace::Coming { target: "admin".into() });
    for (from, to, expected) in [
        (
            "target = \"admin\"",
            "",
            "operator[0].target: is missing; add target = the name of an [[uplink.target]]",
        ),
        (
            "target = \"admin\"",
            "target = \"x\"",
            "operator[0].target: there is no target \"x\"; there are backend, admin",
        ),
        (
            "target = \"admin\"",
            "target = \"backend\"",
            "operator[0].target: \"backend\" is the backend's; add another",
        ),
        (
            "target = \"admin\"",
            "address = \"north.example:443\"",
            "operator[0].address: has no meaning with the uplink's mode",
        ),
        (
            "target = \"admin\"\nca = \"cls.pem\"",
            "target = \"admin\"\npin = \"xx\"",
            "operator[0].pin: cannot be used where the operator",
        ),
        (
            "target = \"admin\"",
            "target = \"admin\"\nserver_name = \"x\"",
            "operator[0].server_name: has no meaning where",
        ),
    ] {
        let error = place.error(&COMING.replacen(from, to, 1));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
    let dialed = place.error(&format!("{GOOD}{ACCESS}").replacen(
        "address = \"north.example:443\"",
        "target = \"x\"",
        1,
    ));
    assert!(
        dialed.contains("operator[0].target: has a meaning with the uplink's mode \"listen\" alone"),
        "{dialed}"
    );
}

#[test]
fn operators_and_certificates_are_taken() {
    let config = Place::new().load(&format!("{GOOD}{ACCESS}")).unwrap();
    assert_eq!(config.api.lan.unwrap().listen.port(), 8884);
    let names: Vec<_> = config.api.certificates.iter().map(|c| (c.name.as_str(), c.role)).collect();
    assert_eq!(names, [("dso", Role::Grid), ("urn:example:boss", Role::Admin)]);
    assert!(matches!(config.operators[0].trust, OperatorTrust::Pin(pin) if pin[1] == 0x11));
    let place = OperatorPlace::Dialed { host: "2001:db8::1".into(), port: 443 };
    assert_eq!(config.operators[1].place, place);
    let south = &config.operators[1].trust;
    assert!(matches!(south, OperatorTrust::Ca { name, .. } if name == "south.example"), "{south:?}");
    let bare = Place::new().load(GOOD).unwrap();
    assert!(bare.api.lan.is_none() && bare.operators.is_empty(), "both are off unless asked for");
}

#[test]
fn each_mistake_about_callers_names_its_place_and_its_mend() {
    let place = Place::new();
    let good = format!("{GOOD}{ACCESS}");
    let print = "fingerprint = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"";
    let pin = "pin = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"";
    let cases = [
        ("listen = \"192.0.2.7:8884\"", "listen = \"192.0.2.7\"", ":35: api.lan.listen: "),
        ("ca = \"cls.pem\"", "ca = \"gone.pem\"", ":38: api.lan.ca: "),
        (
            print,
            "fingerprint = \"0011\"",
            ":41: api.certificate[0].fingerprint: is not a SHA-256 fingerprint",
        ),
        (
            print,
            "fingerprint = \"éé112233445566778899aabbccddeeff00112233445566778899aabbccdd\"",
            ":41: api.certificate[0].fingerprint: is not a SHA-256 fingerprint",
        ),
        (print, "", ": api.certificate[0]: give either fingerprint = \"…\" or uri = \"urn:…\""),
        ("name = \"dso\"", "name = \"d s o\"", ":42: api.certificate[0].name: \"d s o\" is no name"),
        (
            "name = \"dso\"",
            "name = \"0011223344556677\"",
            ":42: api.certificate[0].name: looks like a fingerprint",
        ),
        ("role = \"grid\"", "role = \"dso\"", ":43: api.certificate[0].role: unknown variant `dso`"),
        ("urn:example:boss", "boss", ":46: api.certificate[1].uri: \"boss\" is not a URI"),
        (
            "uri = \"urn:example:boss\"",
            print,
            ":47: api.certificate[1].role: this certificate has a role already",
        ),
        (
            "uri = \"urn:example:boss\"",
            "uri = \"urn:example:boss\"\nname = \"dso\"",
            ":48: api.certificate[1].role: \"dso\" is grid already; one name has one role",
        ),
        ("name = \"north\"", "name = \"../x\"", ":50: operator[0].name: \"../x\" is no name"),
        ("name = \"south\"", "name = \"north\"", ":58: operator[1].name: \"north\" names another operator"),
        (
            "north.example:443",
            "north.example",
            ":51: operator[0].address: \"north.example\" is not host:port",
        ),
        (pin, "", ": operator[0]: give either pin = \"…\" or ca = \"operator-ca.pem\""),
        (pin, "pin = \"xx\"", ":52: operator[0].pin: is not a SHA-256 fingerprint"),
        (
            pin,
            &format!("{pin}\nserver_name = \"x\""),
            ":53: operator[0].server_name: has no meaning with a pin; remove it",
        ),
        ("roles = [\"grid\"]", "roles = []", ":55: operator[0].roles: is empty; write for example"),
        (
            "roles = [\"grid\"]",
            "roles = [\"installer\"]",
            ":55: operator[0].roles: no [[api.certificate]] that could be this operator's has one of these roles",
        ),
        ("key = \"cls.key\"\nroles = [\"grid\"]", "roles = [\"grid\"]", ": operator[0]: missing field `key`"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        // Behind the part that the other test changes.
        let error = place.error(&format!("{GOOD}{}", ACCESS.replacen(from, to, 1)));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
    let (_, operators) = ACCESS.split_once("[[operator]]").unwrap();
    let error = place.error(&format!("{GOOD}\n[[operator]]{operators}"));
    assert!(error.contains("operator[0].pin: no [[api.certificate]] gives this operator a role"), "{error}");
    let (_, rest) = GOOD.split_once("[[meter]]").unwrap();
    let error = place.error(&format!("[site]\nname = \"x\"\n\n[[meter]]{rest}{ACCESS}"));
    assert!(error.contains("operator[0]: needs a table [uplink]"), "{error}");
}

#[test]
fn a_missing_configuration_is_named() {
    let place = Place::new();
    let error = config::load(&place.file()).unwrap_err().to_string();
    assert!(error.contains("site.toml: cannot be read:"), "{error}");
}

const PIN: &str = "pin = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"";

/// The uplink's tables before the rest of a good configuration.
fn with_uplink(uplink: &str, backend: &str) -> String {
    let rest = &GOOD[GOOD.find("[[meter]]").unwrap()..];
    format!(
        "[site]\nname = \"Hof 3\"\n\n[uplink]\n{uplink}\n[backend]\nurl = \"ws://emt.example:9000/ocpp\"\n{backend}\n{rest}"
    )
}

#[test]
fn each_mode_with_its_targets_is_taken() {
    let place = Place::new();
    let load =
        |uplink: &str, backend: &str| place.load(&with_uplink(uplink, backend)).unwrap().uplink.unwrap();
    let files = "certificate = \"cls.pem\"\nkey = \"cls.key\"";
    let sni = load(
        &format!(
            "mode = \"sni\"\ngateway = \"[fe80::1%han0]:8443\"\ninterface = \"han0\"\n{files}\ntrust = {{ {PIN}, ca = \"cls.pem\" }}\n\
             connections = \"one-per-target\"\nrenew_after = \"24 h\"\n[[uplink.target]]\nname = \"backend\"\nsni = \"csms.example\""
        ),
        "target = \"backend\"",
    );
    let Mode::Sni(gateway) = &sni.mode else { panic!("{sni:?}") };
    assert!(gateway.trust.pins.len() == 1 && gateway.trust.ca.is_some(), "an overlap");
    assert_eq!(sni.targets[0].place, config::Place::Sni("csms.example".to_owned()));
    assert_eq!(sni.connections, config::Connections::OnePerTarget);
    let listen = load(
        "mode = \"listen\"\nlisten = \"192.0.2.2\"\nidentity = \"cls-2026\"\ntrust = { tofu = true }\n\
         [[uplink.target]]\nname = \"backend\"\nport = 8443",
        "",
    );
    let Mode::Listen(gateway) = &listen.mode else { panic!("{listen:?}") };
    assert_eq!(gateway.own, config::Own::Stored("cls-2026".to_owned()));
    assert!(gateway.trust.tofu && gateway.address == "192.0.2.2");
    let pins = format!("{{ pin = [{0}, {0}] }}", PIN.trim_start_matches("pin = "));
    let socks =
        load(&format!("mode = \"socks5\"\ngateway = \"smgw.local:8443\"\n{files}\ntrust = {pins}"), "");
    let Mode::Socks5(gateway) = &socks.mode else { panic!("{socks:?}") };
    assert_eq!(gateway.trust.pins.len(), 2);
    assert_eq!(socks.renew_after, std::time::Duration::from_secs(47 * 3600));
    assert_eq!(
        socks.step_timeout,
        std::time::Duration::from_secs(10),
        "for a peer that stalls in the handshake"
    );
    load("mode = \"direct\"", "");
}

#[test]
fn each_mistake_about_the_uplink_names_its_place_and_its_mend() {
    let place = Place::new();
    let own = "identity = \"cls\"";
    let gateway = format!("gateway = \"smgw.local:8443\"\n{own}\ntrust = {{ {PIN} }}");
    let target = |rest: &str| format!("[[uplink.target]]\nname = \"emt\"\n{rest}");
    let trust = |trust: &str| format!("mode = \"socks5\"\ngateway = \"g:1\"\n{own}\ntrust = {{ {trust} }}");
    let cases = [
        ("mode = \"tor\"".to_owned(), "", ":5: uplink.mode: unknown variant `tor`"),
        (
            format!("mode = \"direct\"\n{gateway}"),
            "",
            ":6: uplink.gateway: has no meaning with mode = \"direct\"; remove it",
        ),
        (
            format!("mode = \"listen\"\n{gateway}"),
            "",
            ":6: uplink.gateway: has no meaning with mode = \"listen\"",
        ),
        (
            format!("mode = \"sni\"\nlisten = \"::\"\n{gateway}"),
            "",
            ":6: uplink.listen: has no meaning with mode = \"sni\"",
        ),
        (
            format!("mode = \"listen\"\n{own}\ntrust = {{ {PIN} }}"),
            "",
            "uplink.target: is missing; add [[uplink.target]] with a name and a port",
        ),
        (
            format!("mode = \"sni\"\n{gateway}\n{}", target("host = \"a\"")),
            "",
            "uplink.target[0].host: has no meaning with mode = \"sni\"",
        ),
        (
            format!("mode = \"sni\"\n{gateway}\n{}", target("sni = \"192.0.2.1\"")),
            "",
            "uplink.target[0].sni: \"192.0.2.1\" is not a DNS name",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\n{}", target("host = \"a\"")),
            "",
            "uplink.target[0].port: is missing; add port = 9000",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\n{}", target("host = \"a\"\nport = 0")),
            "",
            "uplink.target[0].port: 0 is no port",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\n{0}\n{0}", target("host = \"a\"\nport = 1")),
            "",
            "uplink.target[1].name: \"emt\" names another target already",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\n{}", target("host = \"a\"\nport = 1")),
            "target = \"csms\"",
            "backend.target: there is no target \"csms\"; there are emt",
        ),
        (
            format!(
                "mode = \"listen\"\n{own}\ntrust = {{ {PIN} }}\n{}\n[[uplink.target]]\nname = \"b\"\nport = 2",
                target("port = 1")
            ),
            "",
            "backend.target: is missing; with mode = \"listen\" and several targets, name the one that is the backend",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\nkey = \"cls.key\""),
            "",
            "uplink.identity: stands beside certificate or key; give either the identity's name or the two files",
        ),
        (
            format!("mode = \"socks5\"\n{}", gateway.replace("\"cls\"", "\"Cls/1\"")),
            "",
            ":7: uplink.identity: \"Cls/1\" is not a name; use 1 to 32 of a-z, 0-9 and -",
        ),
        (
            format!("mode = \"socks5\"\n{gateway}\nrenew_after = \"48 h\""),
            "",
            "uplink.renew_after: 172800s is out of range",
        ),
        (trust(""), "", ":8: uplink.trust: trusts nobody; give pin = "),
        (trust("tofu = true, name = \"a\""), "", "uplink.trust.name: has a meaning with ca alone; remove it"),
        (trust("pin = [\"00\"]"), "", "uplink.trust.pin: is not a SHA-256 fingerprint"),
        (trust("pin = 7"), "", "expected a SHA-256 fingerprint or a list of them"),
    ];
    for (uplink, backend, expected) in cases {
        let error = place.error(&with_uplink(&uplink, backend));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn what_a_gateway_is_offered_beside_the_rule_is_said_gateway_by_gateway() {
    let place = Place::new();
    let own = format!("identity = \"cls\"\ntrust = {{ {PIN} }}");
    let offered = |lines: &str| {
        let text =
            with_uplink(&format!("mode = \"socks5\"\ngateway = \"smgw.local:8443\"\n{own}\n{lines}"), "");
        match place.load(&text).unwrap().uplink.unwrap().mode {
            Mode::Socks5(gateway) => (gateway.tls.tls13, gateway.tls.cbc, gateway.tls.omit_scsv),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        offered(""),
        (false, false, None),
        "TLS 1.2 with GCM, and the SCSV left out once it is refused"
    );
    assert_eq!(offered("tls13 = true"), (true, false, None));
    assert_eq!(offered("cbc = true\nquirks = { omit_scsv = true }"), (false, true, Some(true)));
    assert_eq!(offered("tls13 = true\nquirks = { omit_scsv = false }"), (true, false, Some(false)));
    assert_eq!(offered("quirks = {}"), (false, false, None));
    let target = "[[uplink.target]]\nname = \"emt\"\nport = 1";
    for (mode, lines, expected) in [
        (
            "direct",
            "tls13 = true".to_owned(),
            ":6: uplink.tls13: has no meaning with mode = \"direct\"; remove it",
        ),
        (
            "direct",
            "cbc = true".to_owned(),
            ":6: uplink.cbc: has no meaning with mode = \"direct\"; remove it",
        ),
        (
            "direct",
            "quirks = { omit_scsv = true }".to_owned(),
            ":6: uplink.quirks: has no meaning with mode = \"direct\"; remove it",
        ),
        (
            "listen",
            format!("quirks = {{ omit_scsv = true }}\n{own}\n{target}"),
            ":6: uplink.quirks: has no meaning with mode = \"listen\"; remove it",
        ),
        (
            "socks5",
            format!("gateway = \"g:1\"\n{own}\ntls13 = true\nquirks = {{ omit_scsv = true }}"),
            "uplink.quirks.omit_scsv: goes with TLS 1.2 alone; remove tls13 = true",
        ),
        (
            "socks5",
            format!("gateway = \"g:1\"\n{own}\nquirks = {{ omit_scvs = true }}"),
            "unknown field `omit_scvs`, expected `omit_scsv`",
        ),
        ("socks5", format!("gateway = \"g:1\"\n{own}\ncbc = \"yes\""), "expected a boolean"),
    ] {
        let error = place.error(&with_uplink(&format!("mode = \"{mode}\"\n{lines}"), ""));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

/// What hangs on wires, behind a good configuration.
const WIRES: &str = r#"
[[bus]]
id = "rs485"
port = "/dev/ttyUSB0"
baud = 19200

[[meter]]
id = "sub"
device = "eastron-sdm630"
bus = "rs485"
unit = 7

[[meter]]
id = "head"
device = "sml"
port = "/dev/ttyUSB1"

[[evse]]
id = "box"
max = "16 A"
failsafe = "6 A"
device = { definition = "heidelberg-energy-control", bus = "rs485", unit = 2 }

[[contact]]
id = "ripple"
line = { chip = "/dev/gpiochip0", offset = 4 }
second = { chip = "/dev/gpiochip0", offset = 5 }
limited_when = "open"
limits = ["none", "22 kW", "11 kW", "0 W"]

[[relay]]
id = "k1"
line = { chip = "/dev/gpiochip0", offset = 17 }
function = "contactor"
evse = "box"
mirror = { chip = "/dev/gpiochip0", offset = 18 }
min_off = "30 s"

[sunspec]
listen = "127.0.0.1:1502"
full = "55 kW"
"#;

#[test]
fn wires_are_read_and_each_mistake_in_them_is_named() {
    let place = Place::new();
    let good = format!("{GOOD}{WIRES}");
    let config = place.load(&good).unwrap();
    assert_eq!(config.buses[0].id, "rs485");
    assert_eq!(config.meters[1].at, config::Attachment::Bus(0));
    assert_eq!(config.evses[2].device.as_ref().unwrap().unit, Some(2));
    assert_eq!(config.contacts[0].strictest().map(|w| w.0), Some(0));
    for (from, to, expected) in [
        ("baud = 19200", "baud = 12345", "bus[0].baud: 12345 is not a speed"),
        ("baud = 19200", "data_bits = 7", "bus[0].data_bits: 7 does not fit; use 8, or 7 with ascii"),
        (
            "bus = \"rs485\"\nunit = 7",
            "bus = \"rs232\"",
            "meter[1].bus: there is no [[bus]] with id = \"rs232\"",
        ),
        ("bus = \"rs485\"\nunit = 7", "", "meter[1].address: is missing; add address = "),
        (
            "port = \"/dev/ttyUSB1\"",
            "port = \"/dev/ttyUSB0\"",
            "meter[2].port: is the port of bus \"rs485\" already",
        ),
        (
            "bus = \"rs485\", unit = 2",
            "bus = \"rs485\", address = \"10.0.0.9:502\"",
            "evse[2].device.bus: stands beside address; a device is in one place",
        ),
        ("\"11 kW\", \"0 W\"]", "\"11 kW\"]", "contact[0].limits: has 3 entries; two lines make four codes"),
        ("\"22 kW\"", "\"much\"", "contact[0].limits[1]: \"much\" is not a limit"),
        ("limits = [", "limit = \"1 kW\"\nlimits = [", "contact[0].limit: say what it means"),
        ("evse = \"box\"", "", "relay[0].evse: is missing; name the EVSE that this contactor is before"),
        (
            "function = \"contactor\"\nevse = \"box\"",
            "function = \"unlimited\"\nmin_on = \"5 s\"",
            "relay[0].min_on: goes with function = \"contactor\" only",
        ),
        ("full = \"55 kW\"", "full = \"55 W\"", "sunspec.full: 55 W is out of range"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = place.error(&good.replacen(from, to, 1));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

/// What is asked over HTTP and heard over MQTT, behind a good configuration.
const TOLD: &str = r#"
[[broker]]
id = "house"
address = "10.0.0.2:1883"

[[meter]]
id = "asked"
device = "shelly-pro-3em"
address = "http://10.0.0.8"

[[meter]]
id = "heard"
device = "shelly-pro-3em-mqtt"
broker = "house"
topic = "shellypro3em-b8d61a"

[[relay]]
id = "k1"
line = { switch = "shelly-switch", address = "http://switch.local:8080/" }
function = "unlimited"

[[relay]]
id = "k2"
line = { switch = "shelly-switch-mqtt", broker = "house", topic = "garage/shelly" }
function = "unlimited"
"#;

#[test]
fn devices_that_tell_are_read_and_each_mistake_in_them_is_named() {
    let place = Place::new();
    let good = format!("{GOOD}{TOLD}");
    let config = place.load(&good).unwrap();
    assert_eq!(config.meters[1].at, config::Attachment::Http("10.0.0.8:80".into()));
    let topic = |topic: &str| config::Attachment::Topic { broker: 0, topic: topic.into() };
    assert_eq!(config.meters[2].at, topic("shellypro3em-b8d61a"));
    let switch = |relay: usize| match &config.relays[relay].line {
        config::Line::Switch { at, .. } => at.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(switch(0), config::Attachment::Http("switch.local:8080".into()));
    assert_eq!(switch(1), topic("garage/shelly"));
    for (from, to, expected) in [
        ("http://10.0.0.8", "https://10.0.0.8", "meter[1].address: is over TLS, which is not supported"),
        (
            "http://10.0.0.8",
            "http://10.0.0.8/rpc",
            "meter[1].address: \"http://10.0.0.8/rpc\" is not an address",
        ),
        ("http://10.0.0.8", "http://me:secret@10.0.0.8", "meter[1].address: "),
        (
            "broker = \"house\"\ntopic",
            "broker = \"hause\"\ntopic",
            "meter[2].broker: there is no [[broker]] with id = \"hause\"",
        ),
        ("topic = \"shellypro3em-b8d61a\"", "", "meter[2].topic: is missing"),
        ("broker = \"house\"\ntopic", "topic", "meter[2].broker: is missing; topic stands there"),
        (
            "topic = \"shellypro3em-b8d61a\"",
            "topic = \"shelly/#\"",
            "meter[2].topic: \"shelly/#\" is not one topic",
        ),
        (
            "address = \"http://10.0.0.8\"",
            "address = \"http://10.0.0.8\"\nbroker = \"house\"\ntopic = \"x\"",
            "meter[1].broker: stands beside address",
        ),
        (
            "address = \"10.0.0.2:1883\"",
            "address = \"10.0.0.2\"",
            "broker[0].address: \"10.0.0.2\" is not host:port",
        ),
        (
            "address = \"10.0.0.2:1883\"",
            "address = \"10.0.0.2:1883\"\nuser = \"me\"",
            "broker[0].password_file: is missing; user stands there",
        ),
        (", address = \"http://switch.local:8080/\"", "", "relay[0].line: say where the switch is"),
        ("http://switch.local:8080/", "switch.local:502", "relay[0].line.address: is not a switch's"),
        (
            "line = { switch = \"shelly-switch\",",
            "line = { switch = \"shelly-switch\", offset = 4,",
            "relay[0].line: switch stands beside chip",
        ),
        (
            "function = \"unlimited\"\n",
            "function = \"unlimited\"\nmirror = { switch = \"x\", address = \"http://x\" }\n",
            "relay[0].mirror: a switch in the network is an output",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = place.error(&good.replacen(from, to, 1));
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}
