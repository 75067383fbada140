//! Who may call, in which role and from where.

use super::*;

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
