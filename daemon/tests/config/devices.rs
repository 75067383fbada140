//! Wires, buses, relays, and devices that tell over HTTP or MQTT.

use super::*;

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
