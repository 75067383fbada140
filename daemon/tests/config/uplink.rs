//! The uplink's modes, targets, trust and what a gateway is offered.

use super::*;

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
