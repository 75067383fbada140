#!/usr/bin/env python3
"""Charge points that the daemon plays itself: wallboxes that speak no OCPP, and the site as one charge point.

The wallboxes and the grid's meter are pymodbus servers, filled from the device definitions by tests/devices/peer.py; the
backend is mobilityhouse/ocpp (1.6). Both sides were written by somebody else. Every frame that reaches the backend was
originated by the daemon, so every one is checked against the official schemas. Prints a table; writes
target/report/ocpp-played.json.
"""

import asyncio
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
if pathlib.Path(sys.prefix).resolve() != (ROOT / "target/interop/venv").resolve():
    python = subprocess.run([HERE / "setup"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    sys.exit(subprocess.run([python, __file__, *sys.argv[1:]]).returncode)

import websockets  # noqa: E402
from ocpp.messages import Call, CallResult, unpack, validate_payload  # noqa: E402
from ocpp.routing import on  # noqa: E402
from ocpp.v16 import ChargePoint, call, call_result  # noqa: E402
from pymodbus.server import ModbusTcpServer  # noqa: E402

sys.path[:0] = [str(HERE), str(HERE.parent / "devices")]
from peer import Device, encode  # noqa: E402
from record import now  # noqa: E402
from versions import Wire, until  # noqa: E402

TICK = 0.1
HURRY = 3600  # a second fills the battery as much as an hour


class Served:
    """A definition's registers behind a port."""

    def __init__(self, name: str) -> None:
        self.device = Device(str(ROOT / f"daemon/devices/{name}.toml"), random.Random(1))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    async def start(self) -> None:
        server = ModbusTcpServer(self.device.simulated(), address=("127.0.0.1", self.port))
        await server.serve_forever(background=True)


class Wallbox(Served):
    """A KEBA P30 with a car that takes what it may."""

    def __init__(self) -> None:
        super().__init__("keba-p30")
        self.plugged, self.register = False, 500_000.0
        self.put(1000, 1)
        self.put(1004, 0)

    def put(self, at: int, value: float) -> None:
        self.device.store(3, at, encode("u32", self.device.order, value))

    @property
    def offered(self) -> float:
        """What the box lets through, A."""
        held = self.device.registers[3]
        return held[5004] / 1000 if held[5014] == 1 else 0.0

    async def live(self) -> None:
        while True:
            amps = min(self.offered, 16) if self.plugged and self.offered >= 6 else 0.0
            self.put(1004, 4 if self.plugged else 0)
            self.put(1000, 3 if amps else 2 if self.plugged else 1)
            for at in (1008, 1010, 1012):
                self.put(at, amps * 1000)
            self.put(1020, amps * 690 * 1000)
            self.register += amps * 690 * TICK * HURRY / 3600
            self.put(1036, int(self.register) * 10)
            await asyncio.sleep(TICK)


class Backend(ChargePoint):
    """One charge point's connection at the backend."""

    def __init__(self, identity: str, wire: Wire, site: "Bench") -> None:
        super().__init__(identity, wire, response_timeout=20)
        self.wire, self.bench = wire, site

    def tell(self, kind: str, values: dict) -> None:
        self.bench.told.append((self.id, kind, values))

    @on("BootNotification")
    def on_boot(self, **boot: Any) -> Any:
        self.tell("Boot", boot)
        return call_result.BootNotification(current_time=now(), interval=300, status="Accepted")

    @on("Heartbeat")
    def on_heartbeat(self) -> Any:
        return call_result.Heartbeat(current_time=now())

    @on("StatusNotification")
    def on_status(self, **status: Any) -> Any:
        self.tell("Status", status)
        return call_result.StatusNotification()

    @on("Authorize")
    def on_authorize(self, id_tag: str) -> Any:
        self.tell("Authorize", {"id_tag": id_tag})
        return call_result.Authorize(id_tag_info={"status": "Blocked" if id_tag == "MALLORY" else "Accepted"})

    @on("StartTransaction")
    def on_start(self, **start: Any) -> Any:
        self.tell("Start", start)
        self.bench.given += 1
        return call_result.StartTransaction(transaction_id=self.bench.given, id_tag_info={"status": "Accepted"})

    @on("StopTransaction")
    def on_stop(self, **stop: Any) -> Any:
        self.tell("Stop", stop)
        return call_result.StopTransaction()

    @on("MeterValues")
    def on_meter(self, **values: Any) -> Any:
        self.tell("Meter", values)
        return call_result.MeterValues()


def profile(amps: float, purpose: str = "ChargePointMaxProfile") -> Any:
    """The backend's profile, from now on."""
    schedule = {
        "start_schedule": "2026-01-01T00:00:00Z",
        "charging_rate_unit": "A",
        "charging_schedule_period": [{"start_period": 0, "limit": amps}],
    }
    return call.SetChargingProfile(
        connector_id=0,
        cs_charging_profiles={
            "charging_profile_id": 1,
            "stack_level": 0,
            "charging_profile_purpose": purpose,
            "charging_profile_kind": "Absolute",
            "charging_schedule": schedule,
        },
    )


def value(values: dict, measurand: str) -> float:
    """A measurand's first value."""
    samples = values["meter_value"][0]["sampled_value"]
    return next(float(s["value"]) for s in samples if s["measurand"] == measurand)


class Bench:
    """Wallboxes, meter, daemon, backend."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory, self.rows, self.told, self.given = directory, [], [], 4710
        self.links: dict[str, Backend] = {}
        self.wires: list[Wire] = []
        self.boxes = {"BOX": Wallbox(), "FREE": Wallbox()}
        self.meter = Served("eastron-sdm630")
        self.process: Any = None

    def check(self, what: str, good: bool) -> None:
        self.rows.append((what, "yes" if good else "NO"))

    def all(self, identity: str, kind: str) -> list[dict]:
        return [values for who, what, values in self.told if (who, what) == (identity, kind)]

    def status(self, identity: str) -> str:
        told = [s["status"] for s in self.all(identity, "Status") if s["connector_id"] == 1]
        return told[-1] if told else ""

    async def ask(self, identity: str, message: Any) -> Any:
        await until(f"{identity} is connected", lambda: identity in self.links)
        return await self.links[identity].call(message, suppress=False)

    async def serve(self, port: int) -> Any:
        async def accept(link: Any) -> None:
            identity, wire = link.request.path.rsplit("/", 1)[-1], Wire(link)
            self.wires.append(wire)
            self.links[identity] = backend = Backend(identity, wire, self)
            try:
                await backend.start()
            except websockets.ConnectionClosed:
                pass
            finally:
                if self.links.get(identity) is backend:
                    del self.links[identity]

        return await websockets.serve(accept, "127.0.0.1", port, subprotocols=["ocpp1.6"], compression=None)

    def start(self, port: int) -> None:
        config = self.directory / "site.toml"
        devices = "".join(
            f'[[evse]]\nid = "{name.lower()}"\nidentity = "{name}"\nmax = "16 A"\nfailsafe = "6 A"\n[evse.device]\n'
            f'definition = "keba-p30"\naddress = "127.0.0.1:{box.port}"\ninterval = "200 ms"\n'
            + ('card = "PLUGGED"\n' if name == "FREE" else "")
            for name, box in self.boxes.items()
        )
        config.write_text(
            f'[site]\nname = "played"\ndata = "{self.directory}/data"\n[api]\nsocket = "{self.directory}/api.sock"\n'
            f'[uplink]\nmode = "direct"\nbackoff_min = "1 s"\nbackoff_max = "2 s"\n'
            f'[backend]\nurl = "ws://127.0.0.1:{port}/ocpp"\nretry_interval = "1 s"\n'
            f'[ocpp]\nlisten = "127.0.0.1:0"\nsite = "SITE"\naccept_unknown_offline = true\n'
            f'[control]\nraise_dwell = "0 ms"\nmin_off = "1 s"\nramp = "32 A"\n'
            f'[grid]\nreturn_over = "0 ms"\n'
            f'[[meter]]\nid = "grid"\ndevice = "eastron-sdm630"\naddress = "127.0.0.1:{self.meter.port}"\n'
            f'[[node]]\nid = "main"\nfuse = "250 A"\nmeter = "grid"\n{devices}'
        )
        log = (self.directory / "daemon.log").open("a")
        program = ROOT / "target/debug/ladewartd"
        self.process = subprocess.Popen([program, "--config", config], stdout=log, stderr=subprocess.STDOUT)

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(20)


class Story:
    """What happens, in order."""

    def __init__(self, bench: Bench) -> None:
        self.b = bench

    async def run(self) -> None:
        b = self.b
        for served in (*b.boxes.values(), b.meter):
            await served.start()
        living = [asyncio.create_task(box.live()) for box in b.boxes.values()]
        server = await b.serve(0)
        port = server.sockets[0].getsockname()[1]
        b.start(port)
        try:
            await self.boot()
            await self.charge()
            await self.profiles()
            await self.site()
            await self.stop()
            await self.blocked()
            await self.crash(port)
            await self.reset()
            await self.away(server, port)
        except RuntimeError:
            print(re.sub(r"\x1b\[[0-9;]*m", "", (b.directory / "daemon.log").read_text())[-6000:], file=sys.stderr)
            raise
        finally:
            b.end()
            for task in living:
                task.cancel()
        await self.schemas()

    async def boot(self) -> None:
        b = self.b
        for identity in ("BOX", "FREE", "SITE"):
            await until(f"the boot of {identity}", lambda i=identity: b.all(i, "Boot"))
        boot = b.all("BOX", "Boot")[0]
        b.check("boot: serial number is the identity", boot["charge_point_serial_number"] == "BOX")
        await until("Available", lambda: b.status("BOX") == "Available")
        b.check("status Available", True)
        keys = await b.ask("BOX", call.GetConfiguration())
        known = {k["key"]: k for k in keys.configuration_key}
        needed = {"HeartbeatInterval", "MeterValueSampleInterval", "NumberOfConnectors", "SupportedFeatureProfiles"}
        b.check("configuration keys", needed <= set(known) and known["NumberOfConnectors"]["value"] == "1")
        for key, new, status in (
            ("MeterValueSampleInterval", "1", "Accepted"),
            ("AuthorizeRemoteTxRequests", "true", "Accepted"),
            ("NumberOfConnectors", "2", "Rejected"),
            ("Nonsense", "1", "NotSupported"),
        ):
            answer = await b.ask("BOX", call.ChangeConfiguration(key=key, value=new))
            b.check(f"ChangeConfiguration {key}", answer.status == status)
        keys = await b.ask("BOX", call.GetConfiguration(key=["MeterValueSampleInterval", "Nonsense"]))
        b.check("it is kept", keys.configuration_key[0]["value"] == "1" and keys.unknown_key == ["Nonsense"])

    async def charge(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        box.plugged = True
        await until("Preparing", lambda: b.status("BOX") == "Preparing")
        b.check("plugged in, nobody is released", box.offered == 0 and not b.all("BOX", "Start"))
        answer = await b.ask("BOX", call.RemoteStartTransaction(id_tag="ADA", connector_id=1))
        b.check("remote start", answer.status == "Accepted")
        start = (await until("StartTransaction", lambda: b.all("BOX", "Start")))[0]
        b.check("the card was asked about", {"id_tag": "ADA"} in b.all("BOX", "Authorize"))
        b.check("meterStart is the box's register", start["meter_start"] == 500_000 and start["id_tag"] == "ADA")
        await until("16 A", lambda: box.offered == 16)
        await until("Charging", lambda: b.status("BOX") == "Charging")
        meters = await until("meter values", lambda: len(m := b.all("BOX", "Meter")) > 2 and m)
        energy = [value(m, "Energy.Active.Import.Register") for m in meters]
        b.check("meter values of the transaction", all(m["transaction_id"] == 4711 for m in meters))
        b.check("energy rises", energy == sorted(energy) and energy[0] >= 500_000)
        await until("power", lambda: value(b.all("BOX", "Meter")[-1], "Power.Active.Import") == 11_040)
        b.check("power is the box's", True)

    async def profiles(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        answer = await b.ask("BOX", profile(8))
        await until("8 A at the box", lambda: box.offered == 8)
        b.check("charging profile reaches the box", answer.status == "Accepted")
        answer = await b.ask("BOX", call.GetCompositeSchedule(connector_id=1, duration=60, charging_rate_unit="A"))
        b.check("composite", answer.charging_schedule["charging_schedule_period"][0]["limit"] == 8)
        answer = await b.ask("BOX", call.ClearChargingProfile(id=1))
        await until("16 A again", lambda: box.offered == 16)
        b.check("cleared", answer.status == "Accepted")

    async def site(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        answer = await b.ask("SITE", call.TriggerMessage(requested_message="MeterValues"))
        meters = await until("the site's meter values", lambda: b.all("SITE", "Meter"))
        wanted = round(b.meter.device.expected["import"])
        told = value(meters[-1], "Energy.Active.Import.Register")
        b.check("site: energy of the grid connection", answer.status == "Accepted" and abs(told - wanted) <= 1)
        b.check("site: connector 0", meters[-1]["connector_id"] == 0 and "transaction_id" not in meters[-1])
        answer = await b.ask("SITE", profile(9))
        await until("9 A at the box", lambda: 0 < box.offered <= 9)
        b.check("site: its profile is a limit", answer.status == "Accepted")
        answer = await b.ask("SITE", call.GetCompositeSchedule(connector_id=0, duration=60, charging_rate_unit="A"))
        b.check("site: composite", answer.charging_schedule["charging_schedule_period"][0]["limit"] == 9)
        await b.ask("SITE", call.ClearChargingProfile())
        await until("16 A again", lambda: box.offered == 16)
        answer = await b.ask("SITE", call.RemoteStartTransaction(id_tag="ADA"))
        b.check("site: starts nothing", answer.status == "Rejected")

    async def stop(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        answer = await b.ask("BOX", call.RemoteStopTransaction(transaction_id=1))
        b.check("another's transaction is not stopped", answer.status == "Rejected" and box.offered > 0)
        answer = await b.ask("BOX", call.RemoteStopTransaction(transaction_id=4711))
        stop = (await until("StopTransaction", lambda: b.all("BOX", "Stop")))[0]
        await until("the box is off", lambda: box.offered == 0)
        b.check("remote stop", (answer.status, stop["reason"], stop["transaction_id"]) == ("Accepted", "Remote", 4711))
        first = b.all("BOX", "Start")[0]["meter_start"]
        b.check("meterStop is a register of the box", first < stop["meter_stop"] <= int(box.register))
        await until("Finishing", lambda: b.status("BOX") == "Finishing")
        box.plugged = False
        await until("Available", lambda: b.status("BOX") == "Available")
        b.check("Finishing, then Available", True)

    async def blocked(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        box.plugged = True
        await until("Preparing", lambda: b.status("BOX") == "Preparing")
        await b.ask("BOX", call.RemoteStartTransaction(id_tag="MALLORY"))
        await until("the question", lambda: {"id_tag": "MALLORY"} in b.all("BOX", "Authorize"))
        # What comes after it has passed all that would come of it.
        await b.ask("BOX", call.GetConfiguration(key=["HeartbeatInterval"]))
        b.check("a blocked card does not charge", len(b.all("BOX", "Start")) == 1 and box.offered == 0)

    async def crash(self, port: int) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        await b.ask("BOX", call.RemoteStartTransaction(id_tag="ADA"))
        await until("the second start", lambda: len(b.all("BOX", "Start")) == 2)
        await until("the box is released", lambda: box.offered > 0)
        b.end(signal.SIGKILL)
        boots = len(b.all("BOX", "Boot"))
        b.start(port)
        await until("the boot after the crash", lambda: len(b.all("BOX", "Boot")) > boots)
        await until("the charge goes on", lambda: b.status("BOX") == "Charging" and box.offered > 0)
        box.plugged = False
        await until("its end", lambda: len(b.all("BOX", "Stop")) == 2)
        stop = b.all("BOX", "Stop")[-1]
        b.check("kill -9: one start, one stop", len(b.all("BOX", "Start")) == 2)
        b.check("kill -9: the same transaction", (stop["transaction_id"], stop["reason"]) == (4712, "EVDisconnected"))
        keys = await b.ask("BOX", call.GetConfiguration(key=["MeterValueSampleInterval"]))
        b.check("kill -9: configuration kept", keys.configuration_key[0]["value"] == "1")

    async def reset(self) -> None:
        b, box = self.b, self.b.boxes["BOX"]
        box.plugged = True
        await until("Preparing", lambda: b.status("BOX") == "Preparing")
        await b.ask("BOX", call.RemoteStartTransaction(id_tag="ADA"))
        await until("the third start", lambda: len(b.all("BOX", "Start")) == 3)
        boots = len(b.all("BOX", "Boot"))
        answer = await b.ask("BOX", call.Reset(type="Soft"))
        await until("the boot after the reset", lambda: len(b.all("BOX", "Boot")) > boots)
        stop = (await until("its end", lambda: len(s := b.all("BOX", "Stop")) == 3 and s))[-1]
        b.check("reset: stop, boot", (answer.status, stop["reason"]) == ("Accepted", "SoftReset"))
        answer = await b.ask("BOX", call.ChangeAvailability(connector_id=0, type="Inoperative"))
        await until("Unavailable", lambda: b.status("BOX") == "Unavailable")
        answer = await b.ask("BOX", call.RemoteStartTransaction(id_tag="ADA"))
        b.check("out of service nobody starts", answer.status == "Rejected")

    async def away(self, server: Any, port: int) -> None:
        b, box = self.b, self.b.boxes["FREE"]
        before = b.given
        server.close()
        await server.wait_closed()
        await until("the backend's absence", lambda: not b.links)
        box.plugged = True
        await until("whoever plugs in charges", lambda: box.offered == 16 and box.register > 510_000)
        box.plugged = False
        await until("it is over", lambda: box.offered == 0)
        b.check("without the backend: charged, told nobody", b.given == before)
        await b.serve(port)
        stop = (await until("its transaction", lambda: b.all("FREE", "Stop")))[0]
        start = b.all("FREE", "Start")[0]
        b.check("told later, with the card", len(b.all("FREE", "Start")) == 1 and start["id_tag"] == "PLUGGED")
        b.check("under the backend's id", stop["transaction_id"] == before + 1)
        b.check("its registers", start["meter_start"] == 500_000 and stop["meter_stop"] == int(box.register))

    async def schemas(self) -> None:
        """Every frame that came to the backend."""
        frames, bad = 0, []
        for wire in self.b.wires:
            asked = {m.unique_id: m.action for m in map(unpack, wire.sent) if isinstance(m, Call)}
            for text in wire.heard:
                message = unpack(text)
                if isinstance(message, CallResult):
                    message.action = asked[message.unique_id]
                frames += 1
                try:
                    await validate_payload(message, "1.6")
                except Exception as error:  # noqa: BLE001
                    bad.append(f"{text}: {error}")
            errors = [text for text in wire.sent if text.startswith("[4")]
            bad += [f"the backend refused: {text}" for text in errors]
        for line in bad:
            print(f"   not by the schema: {line}", file=sys.stderr)
        self.b.check(f"our {frames} frames by the schemas", not bad and frames > 50)


async def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(pathlib.Path(name))
        try:
            await Story(bench).run()
        finally:
            width = max((len(what) for what, _ in bench.rows), default=0)
            for what, result in bench.rows:
                print(f"   {what:<{width}}  {result}")
    report = ROOT / "target/report"
    report.mkdir(parents=True, exist_ok=True)
    peer = f"mobilityhouse ocpp {metadata.version('ocpp')}, pymodbus {metadata.version('pymodbus')}"
    listed = [{"what": w, "result": r} for w, r in bench.rows]
    (report / "ocpp-played.json").write_text(
        json.dumps({"name": "ocpp-played", "unit": "checks", "rows": listed, "peer": peer})
    )
    return int(any(result == "NO" for _, result in bench.rows))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
