#!/usr/bin/env python3
"""Devices as pymodbus plays them, filled from their definition files by an encoder of its own.

In, on standard input: one JSON line, a list of {"definition": path, "transport": "tcp", "rtu" or "ascii"}. Out: one JSON
line per device: where it is, its unit, and the value of every quantity as written into its registers. Then it serves
until its standard input ends. Registers written to are read back where the definition says so.
"""

import asyncio
import json
import os
import random
import socket
import struct
import sys
import tomllib
import tty

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

FORMS = {
    "u16": ">H",
    "i16": ">h",
    "u32": ">I",
    "i32": ">i",
    "f32": ">f",
    "u64": ">Q",
    "i64": ">q",
    "f64": ">d",
}
UNITS = {"V": 1, "mV": 1e-3, "A": 1, "mA": 1e-3, "W": 1, "kW": 1e3, "mW": 1e-3, "Wh": 1, "kWh": 1e3, "Hz": 1}
BASE = 40000  # where a SunSpec map begins


def encode(form: str, order: str, raw: float) -> list[int]:
    """The registers of a number."""
    number = raw if form.startswith("f") else round(raw)
    data = struct.pack(FORMS[form], number)
    words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    return words if order == "high-first" else words[::-1]


def sample(quantity: str, dice: random.Random) -> float:
    """A plausible value in the base unit."""
    kind = quantity.split("-")[0]
    return {
        "voltage": lambda: dice.randint(215, 245),
        "current": lambda: dice.randint(1, 30),
        "power": lambda: dice.randint(10, 90) * 100,
        "import": lambda: dice.randint(1000, 9000) * 1000,
        "export": lambda: dice.randint(1000, 9000) * 1000,
        "frequency": lambda: 50,
    }[kind]()


class Device:
    """One definition, filled and served."""

    def __init__(self, path: str, dice: random.Random) -> None:
        with open(path, "rb") as file:
            self.text = tomllib.load(file)
        d = self.text
        self.order = d.get("word_order", "high-first")
        self.unit = d.get("unit", 1)
        self.registers = {3: {}, 4: {}}
        self.writes = {}
        self.expected = {}
        first = 0
        if "sunspec" in d:
            first = BASE + 2 + 68
            self.store(3, BASE, [0x5375, 0x6E53, 1, 66])
            self.store(3, BASE + 4, [0] * 66)
        for block in d.get("block", []):
            function = block["function"]
            for register in range(block["start"], block["start"] + block["count"]):
                self.registers[function].setdefault(first + register, 0)
            for field in block["field"]:
                value = sample(field["quantity"], dice)
                factor = UNITS[field["unit"]] * field.get("scale", 1)
                if "scale_register" in field:
                    power = {"power": 0, "import": 3, "export": 3}.get(field["quantity"].split("-")[0], -1)
                    self.store(function, first + field["scale_register"], encode("i16", self.order, power))
                    factor *= 10**power
                order = field.get("word_order", self.order)
                self.store(function, first + field["register"], encode(field["type"], order, value / factor))
                self.expected[field["quantity"]] = value
        if "sunspec" in d:
            length = 105 if d["sunspec"]["model"] == 203 else 124
            for register in range(first, first + 2 + length):
                self.registers[3].setdefault(register, 0)
            self.store(3, first, [d["sunspec"]["model"], length])
            self.store(3, first + 2 + length, [0xFFFF, 0])
        self.probe(d["probe"], first)
        if d["kind"] == "wallbox":
            self.wallbox(d)

    def store(self, function: int, at: int, words: list[int]) -> None:
        for i, word in enumerate(words):
            self.registers[function][at + i] = word

    def probe(self, probe: dict, first: int) -> None:
        function, register = probe["function"], first + probe["register"]
        if register not in self.registers[function]:
            order = probe.get("word_order", self.order)
            self.store(function, register, encode(probe["type"], order, probe["min"]))

    def wallbox(self, d: dict) -> None:
        state = d["state"]
        charging = state["c"][0]
        if state["type"] == "text":
            data = charging.encode().ljust(2 * state["registers"], b"\0")
            words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        else:
            words = encode(state["type"], state.get("word_order", self.order), charging)
        self.store(state["function"], state["register"], words)
        if "plug" in d:
            plug = d["plug"]
            self.store(plug["function"], plug["register"], encode(plug["type"], self.order, plug["mask"]))
        cells = [d["setpoint"], *d.get("setup", [])]
        cells += [d[name] for name in ("enable",) if name in d]
        cells += [d["failsafe"][name] for name in ("current",) if name in d["failsafe"]]
        cells += [d["watchdog"][name] for name in ("timeout", "life") if name in d["watchdog"]]
        for cell in cells:
            place = cell.get("read", True)
            count = struct.calcsize(FORMS[cell["type"]]) // 2
            self.store(3, cell["register"], [0] * count)
            if isinstance(place, dict):
                self.writes[cell["register"]] = (place["function"], place["register"])
                wide = [self.registers[place["function"]].get(place["register"] - 1, 0)]
                self.store(place["function"], place["register"] - 1, wide + [0] * count)
        if d["failsafe"].get("by_hand") and "current" in d["failsafe"]:
            # Set in the box by hand: 6 A.
            cell = d["failsafe"]["current"]
            self.store(3, cell["register"], encode(cell["type"], self.order, 6))

    async def act(self, function, start, address, count, registers, written):  # noqa: ANN001, ANN201, PLR0913
        """What pymodbus calls for each request."""
        held = self.registers.get(4 if function == 4 else 3)
        if function not in (3, 4, 6, 16):
            return ExcCodes.ILLEGAL_FUNCTION
        if any(at not in held for at in range(address, address + count)):
            return ExcCodes.ILLEGAL_ADDRESS
        if written is not None:
            self.store(3, address, list(written))
            if address in self.writes:
                self.store(*self.writes[address], list(written))
            return None
        registers[address - start : address - start + count] = [held[address + i] for i in range(count)]
        return None

    def simulated(self) -> SimDevice:
        everything = SimData(0, count=65536, values=0, datatype=DataType.REGISTERS)
        return SimDevice(id=self.unit, simdata=[everything], action=self.act)


def bridge(loop: asyncio.AbstractEventLoop, one: int, other: int) -> None:
    """Two pseudo terminals as the two ends of a line."""
    for source, sink in ((one, other), (other, one)):
        loop.add_reader(source, lambda source=source, sink=sink: os.write(sink, os.read(source, 4096)))


async def start(wish: dict, dice: random.Random) -> dict:
    """Serves a device; where it is, and what is in it."""
    device = Device(wish["definition"], dice)
    told = {"name": device.text["name"], "transport": wish["transport"], "unit": device.unit}
    told["expected"] = device.expected
    if wish["transport"] == "tcp":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = ModbusTcpServer(device.simulated(), address=("127.0.0.1", port))
        told["at"] = f"127.0.0.1:{port}"
    else:
        far, far_end = os.openpty()
        near, near_end = os.openpty()
        for end in (far_end, near_end):
            tty.setraw(end)
        bridge(asyncio.get_running_loop(), far, near)
        framer = FramerType.RTU if wish["transport"] == "rtu" else FramerType.ASCII
        server = ModbusSerialServer(device.simulated(), framer=framer, port=os.ttyname(far_end), baudrate=115200)
        told["at"] = os.ttyname(near_end)
    await server.serve_forever(background=True)
    return told


async def serve() -> int:
    """Serves what is wished until the input ends."""
    line = await asyncio.to_thread(sys.stdin.readline)
    for number, wish in enumerate(json.loads(line)):
        print(json.dumps(await start(wish, random.Random(number))), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return 0


def main() -> None:
    """See the module."""
    code = asyncio.run(serve())
    # The servers' own clean-up waits for connections that nobody closes.
    os._exit(code)


if __name__ == "__main__":
    main()
