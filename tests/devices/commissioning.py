#!/usr/bin/env python3
"""A site put into operation as an installer does it: the daemon, ladewartctl, and devices of pymodbus on a serial line.

Usage: commissioning.py DIRECTORY-OF-PROGRAMS REPORT-DIRECTORY. Scan, read, test-setpoint, site check, a welded contactor and its
clearing, and the SunSpec server against pymodbus as client. Prints what was seen; exit code 1 with the first thing that is
not so. The page goes to REPORT-DIRECTORY/site_check.txt.
"""

import asyncio
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tty
from pathlib import Path

import peer
from peer import Device, bridge, encode
from pymodbus import FramerType, pymodbus_apply_logging_config
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusSerialServer

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 120
# What the simulated vehicle draws, and what the grid meter shows: 3 A of the house on each phase beside it.
METER = {"voltage": 230, "current": 10, "power": 2300, "power-total": 6900, "import": 5_000_000, "export": 100_000, "frequency": 50}
BOX = {"voltage": 230, "current": 7, "power": 4830, "import": 12_000, "frequency": 50}


class Wrong(Exception):
    """Something is not as it must be."""


def need(condition: object, text: str) -> None:
    """Ends with the text if the condition does not hold."""
    if not condition:
        raise Wrong(text)


def until(what: str, look) -> object:  # noqa: ANN001
    """Waits until a look finds something."""
    begun = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() - begun > DEADLINE:
            raise Wrong(f"waited {DEADLINE} s for {what}")
        time.sleep(0.2)


def filled(definition: str, unit: int, values: dict, kind: type[Device] = Device) -> Device:
    """A device with these values in its registers."""

    def sample(quantity: str, _dice: random.Random) -> float:
        return values["power-total"] if quantity == "power" and "power-total" in values else values[quantity.split("-")[0]]

    before, peer.sample = peer.sample, sample
    try:
        device = kind(str(ROOT / "daemon/devices" / f"{definition}.toml"), random.Random(0))
    finally:
        peer.sample = before
    device.unit = unit
    return device


class Box(Device):
    """A wallbox whose vehicle takes what it is given, up to 7 A, and shows at the meter beside 3 A of the house."""

    meter: Device

    async def act(self, function, start, address, count, registers, written):  # noqa: ANN001, ANN201, PLR0913
        outcome = await super().act(function, start, address, count, registers, written)
        if written is not None and address == 261 and outcome is None:
            self.draw(min(self.registers[3][261] / 10, 7))
        return outcome

    def draw(self, amps: float) -> None:
        """Into its own registers, and into the meter's."""
        for phase in range(3):
            self.store(4, 6 + phase, [round(amps * 10)])
            self.meter.store(4, 0x06 + 2 * phase, encode("f32", "high-first", amps + 3))
            self.meter.store(4, 0x0C + 2 * phase, encode("f32", "high-first", (amps + 3) * 230))
        self.store(4, 14, [round(amps * 690)])
        self.meter.store(4, 0x34, encode("f32", "high-first", (amps + 3) * 690))


class Line(threading.Thread):
    """The serial line with its devices, in a loop of its own."""

    def __init__(self, devices: list[Device]) -> None:
        super().__init__(daemon=True)
        self.devices = devices
        far, self.far_end = os.openpty()
        near, self.near_end = os.openpty()
        for end in (far, near, self.far_end, self.near_end):
            tty.setraw(end)
        self.masters = far, near
        self.port = os.ttyname(self.near_end)
        self.up = threading.Event()
        self.start()
        need(self.up.wait(DEADLINE), "the serial line does not start")

    def run(self) -> None:
        asyncio.run(self.serve())

    def heard(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001
        """Nobody answers for a unit that is not there; pymodbus would."""
        there = {d.unit for d in self.devices}
        return b"" if sending and data and data[0] not in there else data

    async def serve(self) -> None:
        bridge(asyncio.get_running_loop(), *self.masters)
        server = ModbusSerialServer(
            [d.simulated() for d in self.devices],
            framer=FramerType.RTU,
            port=os.ttyname(self.far_end),
            baudrate=115200,
            trace_packet=self.heard,
        )
        await server.serve_forever(background=True)
        self.up.set()
        await asyncio.Event().wait()


class Contactor(threading.Thread):
    """Follows its coil, its mirror contact follows it; both are files."""

    def __init__(self, coil: Path, mirror: Path) -> None:
        super().__init__(daemon=True)
        self.coil, self.mirror, self.welded, self.closed = coil, mirror, False, False
        self.mirror.write_text("1\n")
        self.start()

    def run(self) -> None:
        while True:
            coil = self.coil.exists() and self.coil.read_text().strip() == "1"
            closed = coil or (self.closed and self.welded)
            if closed != self.closed:
                self.closed = closed
                self.mirror.write_text("0\n" if closed else "1\n")
            time.sleep(0.005)


class Site:
    """The daemon and its client."""

    def __init__(self, programs: Path, directory: Path, configuration: str) -> None:
        self.ctl, self.socket = programs / "ladewartctl", directory / "socket"
        file = directory / "site.toml"
        file.write_text(configuration)
        self.log = (directory / "log").open("w+")
        self.daemon = subprocess.Popen(
            [programs / "ladewartd", "--config", file], stdout=self.log, stderr=subprocess.STDOUT
        )
        until("the daemon's socket", lambda: self.alive() and self.said("status").returncode == 0)

    def alive(self) -> bool:
        if self.daemon.poll() is not None:
            self.log.seek(0)
            raise Wrong(f"the daemon ended:\n{self.log.read()}")
        return True

    def said(self, *words: str, **options: object) -> subprocess.CompletedProcess:
        """What ladewartctl says."""
        command = [self.ctl, "--socket", self.socket, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, **options)

    def json(self, *words: str) -> dict:
        """The same, read by a program."""
        said = self.said(*words, "--output", "json")
        need(said.returncode == 0, f"{words}: {said.stderr}")
        return json.loads(said.stdout)

    def end(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(DEADLINE)


def show(title: str, text: str) -> None:
    """For people."""
    print(f"   {title}")
    for line in text.rstrip().splitlines():
        print(f"      {line}")


def scan(site: Site) -> None:
    said = site.said("device", "scan", "rs485", "--units", "1-4")
    need(said.returncode == 0, said.stderr)
    show("device scan rs485 --units 1-4", said.stdout)
    lines = {line.split()[0]: line for line in said.stdout.splitlines() if line.strip()}
    need("eastron-sdm630" in lines.get("1", ""), "unit 1 is not found as the meter")
    need("heidelberg-energy-control" in lines.get("2", ""), "unit 2 is not found as the wallbox")
    need(set(lines) == {"1", "2"}, f"units that are not there: {set(lines)}")
    unknown = site.said("device", "scan", "rs232")
    need(unknown.returncode != 0 and "there is no bus" in unknown.stderr, f"an unknown bus: {unknown.stderr}")


def read(site: Site) -> None:
    command = [site.ctl, "--socket", site.socket, "device", "read", "grid", "--watch"]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    rounds, text = 0, ""
    for line in watch.stdout:
        text += line
        rounds += line.startswith("answered in")
        if rounds == 3:
            break
    watch.send_signal(signal.SIGINT)
    watch.wait(DEADLINE)
    first = text.split("answered in")[0]
    show("device read grid --watch (the first of three)", first)
    for word in ("voltage-l1", "230.000 V", "current-l3", "10.000 A", "6900.000 W"):
        need(word in first, f"{word} is not in\n{first}")
    need(rounds == 3, "it does not go on")


def setpoint(site: Site, box: Device) -> None:
    until("the wallbox to be driven", lambda: box.registers[3].get(261, 0) > 80)
    said = site.said("device", "test-setpoint", "box", "8 A", "--seconds", "6")
    show('device test-setpoint box "8 A" --seconds 6', said.stdout + said.stderr)
    need(said.returncode == 0, f"test-setpoint: {said.stderr}")
    need("wanted 8.0 A  reads 8.0 A  draws 7.0 A" in said.stdout, "the setpoint is not read back")
    until("the wallbox to be given back", lambda: box.registers[3].get(261, 0) > 80)


def check(site: Site, report: Path) -> None:
    page = until(
        "a page without open checks",
        lambda: (lambda s: s if s.returncode == 0 else None)(site.said("site", "check")),
    )
    show("site check", page.stdout)
    (report / "site_check.txt").write_text(page.stdout)
    for word in ("Hof 3", "failsafe", "read back", "Signature", "clock", "grid", "box", "relay k1"):
        need(word in page.stdout, f"{word} is not on the page")
    need("OPEN" not in page.stdout, "something is open")


def weld(site: Site, contactor: Contactor) -> None:
    early = site.said("relay", "clear", "k1")
    need(early.returncode != 0 and "not locked out" in early.stderr, f"a sound relay: {early.stderr}")
    until("the contactor to close", lambda: contactor.closed)
    contactor.welded = True
    need(site.said("limit", "set", "0 W", "--id", "test", "--reason", "weld").returncode == 0, "no limit")

    def welded() -> str | None:
        page = site.said("site", "check").stdout
        return page if "welded" in page else None

    page = until("the weld to be told", welded)
    show("site check, the contactor welded", "\n".join(l for l in page.splitlines() if "OPEN" in l))
    need("OPEN" in page, "a weld is not open")
    contactor.welded = False
    until("the new contactor to be open", lambda: not contactor.closed)
    need(site.said("limit", "clear", "test").returncode == 0, "the limit is not cleared")
    time.sleep(1)
    need(not contactor.closed, "a welded contactor was closed again before it was cleared")
    said = site.said("relay", "clear", "k1")
    show("relay clear k1", said.stdout + said.stderr)
    need(said.returncode == 0, said.stderr)
    until("the contactor to close again", lambda: contactor.closed)


def sunspec(site: Site, port: int) -> None:
    client = ModbusTcpClient("127.0.0.1", port=port)
    need(client.connect(), "no connection")

    def registers(at: int, count: int) -> list[int]:
        answer = client.read_holding_registers(at, count=count, device_id=1)
        need(not answer.isError(), f"{at}: {answer}")
        return answer.registers

    def number(at: int) -> float:
        return struct.unpack(">f", struct.pack(">HH", *registers(at, 2)))[0]

    def write(at: int, value: float) -> bool:
        words = list(struct.unpack(">HH", struct.pack(">f", value)))
        return not client.write_registers(at, words, device_id=1).isError()

    need(registers(40000, 2) == [0x5375, 0x6E53], "no SunS")
    models, at = [], 40002
    while (header := registers(at, 2))[0] != 0xFFFF:
        models.append((header[0], at))
        at += 2 + header[1]
    need(models == [(1, 40002), (213, 40070), (64900, 40196), (64901, 40966)], f"models {models}")
    until("the meter's power", lambda: number(40098) == METER["power-total"])
    got = [number(40070 + offset) for offset in (4, 6, 8, 12, 14, 16)]
    need(got == [10, 10, 10, 230, 230, 230], f"currents and voltages {got}")
    need(number(40968) == 100, "a limit before one was written")

    def limit() -> dict | None:
        limits = site.json("limit", "list").get("limits", [])
        return next((l for l in limits if "sunspec" in json.dumps(l)), None)

    need(write(40968, 60.0), "60 % are not taken")
    need(abs(number(40968) - 60) < 0.01, f"written 60, reads {number(40968)}")
    until("the limit to be effective", lambda: "EFFECTIVE" in json.dumps(limit() or {}))
    standing = json.dumps(limit())
    need("33000" in standing, f"60 % of 55 kW: {standing}")
    need(not write(40968, 130.0) and not write(40968, -1.0), "no percentage is taken")
    need(not write(40098, 1.0), "a measured value can be written")
    need(client.read_holding_registers(41000, count=2, device_id=1).isError(), "a register that is not there reads")
    need(write(40968, 100.0), "100 % is not taken")
    until("the limit to be gone", lambda: number(40968) == 100)
    need(write(40968, 40.0), "40 % are not taken")
    need(abs(number(40968) - 40) < 0.01, "40 % do not hold")
    until("a limit that is not written again to end", lambda: number(40968) == 100)
    client.close()
    print("   SunSpec: 4 models, 7 values as the meter's, 60 % = 33000 W effective, 130 % and -1 % refused, expiry after 3 s")


def main() -> int:
    """See the module."""
    pymodbus_apply_logging_config("CRITICAL")
    programs, report = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    report.mkdir(parents=True, exist_ok=True)
    meter, box = filled("eastron-sdm630", 1, METER), filled("heidelberg-energy-control", 2, BOX, Box)
    box.meter = meter
    line = Line([meter, box])
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ocpp, modbus = one.getsockname()[1], two.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        contactor = Contactor(directory / "k1", directory / "k1-mirror")
        site = Site(
            programs,
            directory,
            f"""
[site]
name = "Hof 3"
data = "{directory}/data"
[api]
socket = "{directory}/socket"
[ocpp]
listen = "127.0.0.1:{ocpp}"
[control]
raise_dwell = "1 s"
[grid]
return_over = "0 s"
[[bus]]
id = "rs485"
port = "{line.port}"
baud = 115200
parity = "none"
answer = "1 s"
[[meter]]
id = "grid"
device = "eastron-sdm630"
bus = "rs485"
[[node]]
id = "main"
fuse = "63 A"
meter = "grid"
[[evse]]
id = "box"
max = "16 A"
failsafe = "6 A"
device = {{ definition = "heidelberg-energy-control", bus = "rs485", unit = 2 }}
[[relay]]
id = "k1"
line = {{ file = "{directory}/k1" }}
function = "contactor"
evse = "box"
mirror = {{ file = "{directory}/k1-mirror" }}
[sunspec]
listen = "127.0.0.1:{modbus}"
full = "55 kW"
holds = "3 s"
""",
        )
        try:
            scan(site)
            until("the wallbox to be driven", lambda: box.registers[3].get(261, 0) > 80)
            read(site)
            setpoint(site, box)
            check(site, report)
            weld(site, contactor)
            sunspec(site, modbus)
            site.alive()
        except Exception:
            site.log.seek(0)
            sys.stderr.write(site.log.read()[-6000:])
            raise
        finally:
            site.daemon.poll() is None and site.end()
    steps = ["device scan", "device read --watch", "device test-setpoint", "site check", "relay clear", "SunSpec"]
    rows = [{"step": step, "seen": True} for step in steps]
    text = {"name": "commissioning", "unit": "steps", "peer": "pymodbus 3.16.1", "rows": rows}
    (report / "commissioning.json").write_text(json.dumps(text) + "\n")
    return 0


if __name__ == "__main__":
    try:
        CODE = main()
    except Wrong as wrong:
        sys.stderr.write(f"commissioning: {wrong}\n")
        CODE = 1
    sys.stdout.flush()
    # The serial line's loop does not end by itself.
    os._exit(CODE)
