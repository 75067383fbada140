#!/usr/bin/env python3
"""Devices that tell JSON: an HTTP server of the maker's documented answers, and a client of an MQTT broker.

In, on standard input: one JSON line {"broker": port of an MQTT broker}. Out: one JSON line: where the HTTP server is, and the
value of every quantity in each definition. Then, line by line, what shall go wrong: {"http": kind}, {"mqtt": kind}; each is
answered with a line when it is so. It serves until its standard input ends.

The HTTP side is Python's own server; the MQTT side is paho. A switch opens by its own timer, as the maker documents it.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import paho.mqtt.client as mqtt

# What a Shelly Pro 3EM answers to EM.GetStatus (maker's documentation of the EM component), with values of its kind.
EM = {
    "id": 0,
    "a_current": 10.622,
    "a_voltage": 233.5,
    "a_act_power": 2413.6,
    "a_aprt_power": 2477.9,
    "a_pf": 0.96,
    "a_freq": 50.0,
    "b_current": 1.872,
    "b_voltage": 236.7,
    "b_act_power": -409.2,
    "b_aprt_power": 443.0,
    "b_pf": -0.92,
    "b_freq": 50.0,
    "c_current": 1.144,
    "c_voltage": 237.1,
    "c_act_power": 233.7,
    "c_aprt_power": 270.9,
    "c_pf": -0.88,
    "c_freq": 50.0,
    "n_current": None,
    "total_current": 13.638,
    "total_act_power": 2238.1,
    "total_aprt_power": 3191.8,
    "user_calibrated_phase": [],
}
# And to EMData.GetStatus.
EMDATA = {
    "id": 0,
    "a_total_act_energy": 5000.5,
    "a_total_act_ret_energy": 0.0,
    "b_total_act_energy": 1000.25,
    "b_total_act_ret_energy": 300.0,
    "c_total_act_energy": 2000.0,
    "c_total_act_ret_energy": 0.0,
    "total_act": 8000.75,
    "total_act_ret": 300.0,
}
EXPECTED = {
    **{f"voltage-l{i}": EM[f"{p}_voltage"] for i, p in enumerate("abc", 1)},
    **{f"current-l{i}": EM[f"{p}_current"] for i, p in enumerate("abc", 1)},
    **{f"power-l{i}": EM[f"{p}_act_power"] for i, p in enumerate("abc", 1)},
    "power": EM["total_act_power"],
    "import": EMDATA["total_act"],
    "export": EMDATA["total_act_ret"],
}
TOPIC = "shellypro3em-b8d61a"
SWITCH = "shellyplus1-08b61f"


class Switch:
    """One output with its own timer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.output = False
        self.until = None
        self.stuck = False
        self.told = lambda: None

    def set(self, on: bool, toggle_after: float | None) -> dict:
        with self.lock:
            was = self.state()
            if not self.stuck:
                self.output = on
                self.until = time.monotonic() + toggle_after if toggle_after else None
        self.told()
        return {"was_on": was}

    def state(self) -> bool:
        if self.until is not None and time.monotonic() >= self.until:
            self.output, self.until = not self.output, None
        return self.output

    def status(self) -> dict:
        with self.lock:
            return {"id": 0, "source": "http", "output": self.state(), "temperature": {"tC": 40.1, "tF": 104.2}}


class Faults:
    """What goes wrong now."""

    http = None
    mqtt = None


HTTP_SWITCH, MQTT_SWITCH = Switch(), Switch()


class Handler(BaseHTTPRequestHandler):
    """The device's RPC over HTTP."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing for people."""

    def do_GET(self) -> None:
        """One call."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        answer = {
            "/rpc/EM.GetStatus": lambda: EM,
            "/rpc/EMData.GetStatus": lambda: EMDATA,
            "/rpc/Switch.GetStatus": HTTP_SWITCH.status,
            "/rpc/Switch.Set": lambda: HTTP_SWITCH.set(
                query["on"] == "true", float(query["toggle_after"]) if "toggle_after" in query else None
            ),
        }.get(url.path)
        if answer is None:
            self.reply(404, b"not found")
            return
        body = json.dumps(answer()).encode()
        match Faults.http if url.path == "/rpc/EM.GetStatus" else None:
            case "html":
                body = b"<html>login</html>"
            case "cut":
                body = body[: len(body) // 2]
            case "null":
                body = json.dumps({**EM, "b_current": None}).encode()
            case "missing":
                body = json.dumps({k: v for k, v in EM.items() if k != "c_voltage"}).encode()
            case "text":
                body = json.dumps({**EM, "a_act_power": "2413.6"}).encode()
            case "implausible":
                body = json.dumps({**EM, "a_voltage": 2335.0}).encode()
            case "late":
                time.sleep(4)
            case "password":
                self.reply(401, b"")
                return
            case "long":
                body = b"[" + b"0," * 100_000 + b"0]"
        self.reply(200, body)

    def reply(self, status: int, body: bytes) -> None:
        """An answer."""
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


class Device:
    """Publishes as the maker documents it: status at intervals, the answer to an order at once."""

    def __init__(self, port: int) -> None:
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="devices")
        self.client.on_connect = lambda client, *_: client.subscribe(f"{SWITCH}/rpc", qos=1)
        self.client.on_message = self.order
        MQTT_SWITCH.told = self.tell
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        threading.Thread(target=self.publish, daemon=True).start()

    def order(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        call = json.loads(message.payload)
        params = call["params"]
        result = MQTT_SWITCH.set(params["on"], params.get("toggle_after"))
        answer = {"id": call["id"], "src": SWITCH, "dst": call["src"], "result": result}
        self.client.publish(f"{call['src']}/rpc", json.dumps(answer), qos=1)

    def tell(self) -> None:
        self.client.publish(f"{SWITCH}/status/switch:0", json.dumps(MQTT_SWITCH.status()), qos=1)

    def publish(self) -> None:
        while True:
            status = EM
            match Faults.mqtt:
                case "null":
                    status = {**EM, "b_current": None}
                case "implausible":
                    status = {**EM, "a_voltage": 2335.0}
            body = "garbage" if Faults.mqtt == "garbage" else json.dumps(status)
            if Faults.mqtt != "silent":
                self.client.publish(f"{TOPIC}/status/emdata:0", json.dumps(EMDATA), qos=1)
                self.client.publish(f"{TOPIC}/status/em:0", body, qos=1)
            time.sleep(0.2)


def main() -> None:
    """See the module."""
    wish = json.loads(sys.stdin.readline())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # A client that gives up is no error here.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Device(wish["broker"])
    told = {"http": f"127.0.0.1:{server.server_address[1]}", "topic": TOPIC, "switch": SWITCH, "expected": EXPECTED}
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "http" in order:
            Faults.http = order["http"]
        if "mqtt" in order:
            Faults.mqtt = order["mqtt"]
        if "stuck" in order:
            HTTP_SWITCH.stuck = MQTT_SWITCH.stuck = order["stuck"]
        states = {"http": HTTP_SWITCH.status()["output"], "mqtt": MQTT_SWITCH.status()["output"]}
        print(json.dumps(states), flush=True)


if __name__ == "__main__":
    main()
