#!/usr/bin/env python3
"""OCPP 1.6, 2.0.1 and 2.1 through the daemon, between peers that somebody else wrote.

mobilityhouse/ocpp is backend and charge point in each version; npm ocpp-rpc in strict mode is both once more. The peers
check every payload against the official schemas; what the daemon itself says (its answers while the backend is away, its
charging profiles, what the controller tells under its own identity) is checked here again, frame by frame. The charge
points' side is compressed (RFC 7692), the backend's is not. Prints a table; writes target/report/ocpp-versions.json.
With the argument "kit" the peer is ocpp-kit instead, and the file is ocpp-kit.json.
"""

import asyncio
import importlib
import json
import pathlib
import re
import shutil
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

sys.path.insert(0, str(HERE))
from record import now  # noqa: E402

DEADLINE = 60
VERSIONS = ("1.6", "2.0.1", "2.1")
CONTROLLER = "SITE"
SIGNED = "OCMF|{\"FV\":\"1.0\",\"RD\":[{\"RV\":  1.50}]}|{\"SD\":\"3046022100\u00fc\"}"


class Wire:
    """A socket whose frames are written down."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.sent, self.heard = socket, [], []

    async def recv(self) -> str:
        text = await self.socket.recv()
        self.heard.append(text)
        return text

    async def send(self, text: str) -> None:
        self.sent.append(text)
        await self.socket.send(text)


async def until(what: str, condition: Any) -> Any:
    async def wait() -> Any:
        while not (value := condition()):
            await asyncio.sleep(0.05)
        return value

    try:
        return await asyncio.wait_for(wait(), DEADLINE)
    except TimeoutError:
        raise RuntimeError(f"waited in vain: {what}") from None


class Daemon:
    """ladewartd without a gateway, between loopback ports."""

    def __init__(self, directory: pathlib.Path, backend_port: int, identities: list[str], more: str = "") -> None:
        self.log, self.socket = directory / "daemon.log", directory / "api.sock"
        evses = "".join(
            f'[[evse]]\nid = "{i.lower()}"\nidentity = "{i}"\nmax = "16 A"\nphases = "L1 L2 L3"\nfailsafe = "6 A"\n'
            for i in identities
        )
        config = directory / "site.toml"
        config.write_text(
            f'[site]\nname = "versions"\ndata = "{directory}/data"\n[api]\nsocket = "{self.socket}"\n'
            f'[uplink]\nmode = "direct"\nbackoff_min = "1 s"\nbackoff_max = "2 s"\n'
            f'[backend]\nurl = "ws://127.0.0.1:{backend_port}/ocpp"\n'
            f'[ocpp]\nlisten = "127.0.0.1:0"\naccept_unknown_offline = true\n{more}'
            f'[[node]]\nid = "main"\nfuse = "63 A"\n{evses}'
        )
        program = ROOT / "target/debug/ladewartd"
        self.process = subprocess.Popen(
            [program, "--config", config], stdout=self.log.open("w"), stderr=subprocess.STDOUT
        )

    async def port(self) -> int:
        def found() -> Any:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended:\n{self.log.read_text()}")
            return re.search(r"EVSEs connect here.*?127\.0\.0\.1:(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text()))

        return int((await until("the daemon's port", found)).group(1))

    async def ctl(self, *words: str) -> None:
        program = ROOT / "target/debug/ladewartctl"
        process = await asyncio.create_subprocess_exec(
            program, "--socket", self.socket, *words, stdout=asyncio.subprocess.DEVNULL
        )
        if await asyncio.wait_for(process.wait(), DEADLINE) != 0:
            raise RuntimeError(f"ladewartctl {' '.join(words)} ended with {process.returncode}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def messages(version: str) -> Any:
    """The package of a version: its messages and its charge point."""
    return importlib.import_module({"1.6": "ocpp.v16", "2.0.1": "ocpp.v201", "2.1": "ocpp.v21"}[version])


def backend_class(version: str) -> Any:
    package = messages(version)
    call_result = package.call_result
    two = version != "1.6"

    class Backend(package.ChargePoint):
        def __init__(self, identity: str, wire: Wire, told: list) -> None:
            super().__init__(identity, wire, response_timeout=20)
            self.wire, self.told = wire, told

        @on("BootNotification")
        def on_boot(self, **_: Any) -> Any:
            return call_result.BootNotification(current_time=now(), interval=300, status="Accepted")

        @on("Heartbeat")
        def on_heartbeat(self) -> Any:
            return call_result.Heartbeat(current_time=now())

        @on("StatusNotification")
        def on_status(self, **_: Any) -> Any:
            return call_result.StatusNotification()

        @on("MeterValues")
        def on_meter(self, **values: Any) -> Any:
            self.told.append(("MeterValues", values))
            return call_result.MeterValues()

        if two:

            @on("TransactionEvent")
            def on_event(self, **event: Any) -> Any:
                self.told.append(("TransactionEvent", event))
                return call_result.TransactionEvent()

            @on("Authorize")
            def on_authorize(self, **_: Any) -> Any:
                return call_result.Authorize(id_token_info={"status": "Accepted"})

            @on("NotifyChargingLimit")
            def on_limit(self, **limit: Any) -> Any:
                self.told.append(("NotifyChargingLimit", limit))
                return call_result.NotifyChargingLimit()

            @on("ClearedChargingLimit")
            def on_cleared(self, **cleared: Any) -> Any:
                self.told.append(("ClearedChargingLimit", cleared))
                return call_result.ClearedChargingLimit()

            @on("SecurityEventNotification")
            def on_security(self, **event: Any) -> Any:
                self.told.append(("SecurityEventNotification", event))
                return call_result.SecurityEventNotification()

            @on("ReportChargingProfiles")
            def on_report(self, **report: Any) -> Any:
                self.told.append(("ReportChargingProfiles", report))
                return call_result.ReportChargingProfiles()

        else:

            @on("StartTransaction")
            def on_start(self, **start: Any) -> Any:
                self.told.append(("StartTransaction", start))
                return call_result.StartTransaction(transaction_id=4711, id_tag_info={"status": "Accepted"})

            @on("StopTransaction")
            def on_stop(self, **stop: Any) -> Any:
                self.told.append(("StopTransaction", stop))
                return call_result.StopTransaction()

    return Backend


def station_class(version: str) -> Any:
    package = messages(version)
    call_result = package.call_result

    class Station(package.ChargePoint):
        def __init__(self, identity: str, wire: Wire) -> None:
            super().__init__(identity, wire, response_timeout=20)
            self.wire, self.profiles = wire, []

        @on("SetChargingProfile")
        def on_profile(self, **profile: Any) -> Any:
            self.profiles.append(profile)
            return call_result.SetChargingProfile(status="Accepted")

        @on("ClearChargingProfile")
        def on_clear(self, **_: Any) -> Any:
            return call_result.ClearChargingProfile(status="Accepted")

        @on("TriggerMessage")
        def on_trigger(self, **_: Any) -> Any:
            return call_result.TriggerMessage(status="NotImplemented")

        @on("Reset")
        def on_reset(self, **_: Any) -> Any:
            return call_result.Reset(status="Accepted")

    return Station


def limits(profile: dict) -> list[float]:
    """The limits of a SetChargingProfile of either version."""
    inner = profile.get("charging_profile") or profile["cs_charging_profiles"]
    schedule = inner["charging_schedule"]
    schedule = schedule[0] if isinstance(schedule, list) else schedule
    return [period["limit"] for period in schedule["charging_schedule_period"]]


def maximum(version: str, amps: float) -> Any:
    """The backend's SetChargingProfile of the station's maximum."""
    call = messages(version).call
    schedule = {
        "start_schedule": "2026-01-01T00:00:00Z",
        "charging_rate_unit": "A",
        "charging_schedule_period": [{"start_period": 0, "limit": amps}],
    }
    common = {"stack_level": 3, "charging_profile_kind": "Absolute"}
    if version == "1.6":
        purpose = {"charging_profile_id": 1, "charging_profile_purpose": "ChargePointMaxProfile"}
        return call.SetChargingProfile(
            connector_id=0, cs_charging_profiles={**common, **purpose, "charging_schedule": schedule}
        )
    purpose = {"id": 1, "charging_profile_purpose": "ChargingStationMaxProfile"}
    return call.SetChargingProfile(
        evse_id=0, charging_profile={**common, **purpose, "charging_schedule": [{"id": 1, **schedule}]}
    )


def event(version: str, kind: str, number: int, reason: str) -> Any:
    """A message of a transaction with a signed value in it; 1.6 has its own shape for each."""
    call = messages(version).call
    signed = {
        "signed_meter_data": SIGNED,
        "signing_method": "",
        "encoding_method": "OCMF",
        "public_key": "oca:base16:asn1:30",
    }
    sample = {"value": 1.5, "context": "Transaction.Begin", "signed_meter_value": signed}
    return call.TransactionEvent(
        event_type=kind,
        timestamp=now(),
        trigger_reason=reason,
        seq_no=number,
        transaction_info={"transaction_id": f"tx-{version}"},
        evse={"id": 1, "connector_id": 1},
        meter_value=[{"timestamp": now(), "sampled_value": [sample]}],
    )


class Run:
    """One version from boot to the end of a transaction that the backend missed the middle of."""

    def __init__(self, version: str, rows: list) -> None:
        self.version, self.rows, self.told = version, rows, []
        self.backend: Any = None
        self.controller: Any = None
        self.backend_wires: list[Wire] = []

    def check(self, what: str, good: bool) -> None:
        self.rows.append((self.version, what, "yes" if good else "NO"))

    async def serve(self, port: int) -> Any:
        async def accept(socket: Any) -> None:
            wire = Wire(socket)
            self.backend_wires.append(wire)
            identity = socket.request.path.rsplit("/", 1)[-1]
            peer = backend_class(self.version)(identity, wire, self.told)
            if identity == CONTROLLER:
                self.controller = peer
            else:
                self.backend = peer
            try:
                await peer.start()
            except websockets.ConnectionClosed:
                pass

        protocol = f"ocpp{self.version}"
        return await websockets.serve(accept, "127.0.0.1", port, subprotocols=[protocol], compression=None)

    async def run(self) -> None:
        call = messages(self.version).call
        identity = f"CP{self.version.replace('.', '')}"
        with tempfile.TemporaryDirectory() as name:
            server = await self.serve(0)
            port = server.sockets[0].getsockname()[1]
            own = "" if self.version == "1.6" else f'controller = "{CONTROLLER}"\n'
            daemon = Daemon(pathlib.Path(name), port, [identity], own)
            try:
                url = f"ws://127.0.0.1:{await daemon.port()}/{identity}"
                # All versions are on offer; the backend speaks one.
                offer = ["ocpp2.1", "ocpp2.0.1", "ocpp1.6"]
                async with websockets.connect(url, subprotocols=offer) as socket:
                    self.check("the backend's version is spoken", socket.subprotocol == f"ocpp{self.version}")
                    compressed = any("deflate" in e.name for e in socket.protocol.extensions)
                    self.check("compressed on one leg only", compressed)
                    wire = Wire(socket)
                    station = station_class(self.version)(identity, wire)
                    reading = asyncio.create_task(station.start())
                    if self.version != "1.6":
                        await self.limits_told(call, daemon)
                    await self.story(station, call, server, port, daemon)
                    reading.cancel()
                    await self.schemas(station)
            finally:
                daemon.stop()

    def heard(self, kind: str) -> list:
        return [what for which, what in self.told if which == kind]

    async def limits_told(self, call: Any, daemon: Daemon) -> None:
        """The controller under its own identity: what limits the site from another side than the backend's."""
        await until("the controller's start", lambda: self.heard("SecurityEventNotification"))
        self.check("controller: its start", self.heard("SecurityEventNotification")[0]["type"] == "StartupOfTheDevice")
        await daemon.ctl("limit", "set", "8 kW", "--id", "told")
        await until("the limit", lambda: self.heard("NotifyChargingLimit"))
        notice = self.heard("NotifyChargingLimit")[0]
        periods = notice["charging_schedule"][0]["charging_schedule_period"]
        source = notice["charging_limit"]["charging_limit_source"]
        self.check("controller: a limit is told", (source, [p["limit"] for p in periods]) == ("EMS", [8000]))
        asked = call.GetVariables(get_variable_data=[{"component": {"name": "X"}, "variable": {"name": "Y"}}])
        answer = await self.controller.call(asked, suppress=False)
        result = answer.get_variable_result[0]["attribute_status"]
        self.check("controller: answers for itself", result == "UnknownComponent")
        await daemon.ctl("limit", "clear", "told")
        await until("its end", lambda: self.heard("ClearedChargingLimit"))
        cleared = self.heard("ClearedChargingLimit")
        told = len(self.heard("NotifyChargingLimit"))
        self.check("controller: its end is told", cleared == [{"charging_limit_source": "EMS"}] and told == 1)

    async def story(self, station: Any, call: Any, server: Any, port: int, daemon: Daemon) -> None:
        two = self.version != "1.6"
        boot = (
            call.BootNotification(charging_station={"model": "M", "vendor_name": "V"}, reason="PowerUp")
            if two
            else call.BootNotification(charge_point_model="M", charge_point_vendor="V")
        )
        answer = await station.call(boot, suppress=False)
        self.check("boot answered by the backend", answer.status == "Accepted")
        plugged = (
            call.StatusNotification(timestamp=now(), connector_status="Occupied", evse_id=1, connector_id=1)
            if two
            else call.StatusNotification(connector_id=1, error_code="NoError", status="Preparing")
        )
        await station.call(plugged, suppress=False)
        await until("our limit", lambda: station.profiles and limits(station.profiles[-1])[0] > 5)
        own = limits(station.profiles[-1])
        self.check("our limit is taken", own[0] <= 16)

        answer = await self.backend.call(maximum(self.version, 5), suppress=False)
        merged = limits(station.profiles[-1])
        self.check("the backend's maximum is merged", answer.status == "Accepted" and merged == [5, 5] and own[0] > 5)
        place = {"evse_id": 1} if two else {"connector_id": 1}
        answer = await self.backend.call(call.GetCompositeSchedule(duration=600, charging_rate_unit="A", **place), suppress=False)
        schedule = answer.schedule if two else answer.charging_schedule
        self.check("the composite tells it", schedule["charging_schedule_period"][0]["limit"] == 5)
        if two:
            answer = await self.backend.call(call.GetChargingProfiles(request_id=1, charging_profile={}), suppress=False)
            report = await until("the report", lambda: [r for kind, r in self.told if kind == "ReportChargingProfiles"])
            ids = [p["id"] for p in report[0]["charging_profile"]]
            self.check("the report hides ours", answer.status == "Accepted" and ids == [1])
        answer = await self.backend.call(call.ClearChargingProfile(), suppress=False)
        await until("our limit once more", lambda: limits(station.profiles[-1])[0] == own[0])
        self.check("clearing everything leaves ours", answer.status == "Accepted")
        reset = call.Reset(type="OnIdle" if two else "Soft")
        self.check("calls pass down", (await self.backend.call(reset, suppress=False)).status == "Accepted")

        sent: list[Any] = []

        async def deliver(message: Any) -> Any:
            sent.append(message)
            return await station.call(message, suppress=False)

        await self.transaction(deliver, call, server, port, daemon)
        await until("every message", lambda: len(self.transaction_messages()) >= len(sent))
        kinds = [type(m).__name__ for m in sent]
        self.check("each once, in order", [kind for kind, _ in self.transaction_messages()] == kinds)

    def transaction_messages(self) -> list:
        return [entry for entry in self.told if entry[0] in ("TransactionEvent", "StartTransaction", "StopTransaction")]

    async def transaction(self, deliver: Any, call: Any, server: Any, port: int, daemon: Daemon) -> None:
        two = self.version != "1.6"
        if two:
            await deliver(event(self.version, "Started", 0, "CablePluggedIn"))
        server.close()
        await server.wait_closed()
        await until("the backend's absence", lambda: "the backend is gone" in daemon.log.read_text())
        if two:
            for number in (1, 2):
                await deliver(event(self.version, "Updated", number, "MeterValuePeriodic"))
            await deliver(event(self.version, "Ended", 3, "EVDeparted"))
        else:
            answer = await deliver(call.StartTransaction(connector_id=1, id_tag="C", meter_start=1, timestamp=now()))
            signed = {"value": SIGNED, "format": "SignedData", "context": "Transaction.End"}
            values = [{"timestamp": now(), "sampled_value": [signed]}]
            await deliver(
                call.StopTransaction(
                    meter_stop=2, timestamp=now(), transaction_id=answer.transaction_id, transaction_data=values
                )
            )
        await self.serve(port)
        await until("the end of the transaction", lambda: self.transaction_messages()[-1:] and self.is_last(self.transaction_messages()[-1]))
        raw = "".join(text for wire in self.backend_wires for text in wire.heard)
        self.check("signed values bit for bit", json.dumps(SIGNED) in raw or json.dumps(SIGNED, ensure_ascii=False) in raw)
        if two:
            offline = [e.get("offline", False) for _, e in self.transaction_messages()]
            self.check("events say they were offline", offline == [False, True, True, True])
            self.check("seqNo untouched", [e["seq_no"] for _, e in self.transaction_messages()] == [0, 1, 2, 3])
        else:
            ids = [stop["transaction_id"] for kind, stop in self.told if kind == "StopTransaction"]
            self.check("the backend's transaction id", ids == [4711])

    def is_last(self, entry: tuple) -> bool:
        kind, body = entry
        return kind == "StopTransaction" or body.get("event_type") == "Ended"

    async def schemas(self, station: Any) -> None:
        """What we said ourselves, by the official schemas: what one side heard and the other did not say."""
        said = {text for wire in self.backend_wires for text in wire.sent}
        actions = {m.unique_id: m.action for m in map(unpack, station.wire.sent) if isinstance(m, Call)}
        ours, bad = 0, []
        for text in station.wire.heard:
            if text in said:
                continue
            message = unpack(text)
            if isinstance(message, CallResult):
                message.action = actions[message.unique_id]
            ours += 1
            try:
                await validate_payload(message, self.version)
            except Exception as error:  # noqa: BLE001
                bad.append(f"{text}: {error}")
        said = set(station.wire.sent)
        asked = {m.unique_id: m.action for w in self.backend_wires for m in map(unpack, w.sent) if isinstance(m, Call)}
        for wire in self.backend_wires:
            for text in wire.heard:
                if text in said:
                    continue
                message = unpack(text)
                if isinstance(message, CallResult):
                    message.action = asked[message.unique_id]
                ours += 1
                try:
                    await validate_payload(message, self.version)
                except Exception as error:  # noqa: BLE001
                    bad.append(f"{text}: {error}")
        for line in bad:
            print(f"   not by the schema: {line}", file=sys.stderr)
        self.check(f"our own {ours} frames by the schemas", not bad and ours > 5)


async def both_sides(rows: list, name: str, program: list, version: str, identity: str) -> None:
    """A program that is backend and charge point at once: it says its port, hears the daemon's, prints its checks."""
    with tempfile.TemporaryDirectory() as directory:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*map(str, program), version, stdin=pipe, stdout=pipe)
        port = int((await asyncio.wait_for(process.stdout.readline(), DEADLINE)).decode())
        daemon = Daemon(pathlib.Path(directory), port, [identity])
        try:
            process.stdin.write(f"{await daemon.port()}\n".encode())
            out, _ = await asyncio.wait_for(process.communicate(), 2 * DEADLINE)
            for line in out.decode().splitlines():
                what, _, result = line.partition("\t")
                rows.append((f"{version} {name}", what, result))
            if process.returncode != 0:
                rows.append((f"{version} {name}", f"ended with {process.returncode}", "NO"))
        finally:
            daemon.stop()


async def strict_rpc(rows: list) -> None:
    """npm ocpp-rpc in strict mode on both sides."""
    node = ROOT / "target/interop/node"
    if shutil.which("npm") is None:
        rows.append(("ocpp-rpc", "npm is missing", "skipped"))
        return
    if not (node / "node_modules/ocpp-rpc").exists():
        node.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", node, "ocpp-rpc@2.2.1"], check=True)
    shutil.copy(HERE / "strict.cjs", node / "strict.cjs")
    for version in VERSIONS:
        await both_sides(rows, "rpc", ["node", node / "strict.cjs"], version, "RPC")


async def kit(rows: list) -> None:
    """ocpp-kit on both sides, with the ledger of its CSMS. `tests/parts/kit` builds it."""
    for version in VERSIONS:
        await both_sides(rows, "kit", [ROOT / "target/interop/kit/debug/ladewart-kit"], version, "KIT")


async def main() -> int:
    rows: list = []
    name, peer = "ocpp-versions", f"mobilityhouse ocpp {metadata.version('ocpp')}, npm ocpp-rpc 2.2.1 strict"
    if sys.argv[1:] == ["kit"]:
        name, peer = "ocpp-kit", "ocpp-kit 0.3.0"
        await kit(rows)
    else:
        for version in VERSIONS:
            await Run(version, rows).run()
        await strict_rpc(rows)
    width = max(len(what) for _, what, _ in rows)
    for version, what, result in rows:
        print(f"   {version:<10} {what:<{width}}  {result}")
    report = ROOT / "target/report"
    report.mkdir(parents=True, exist_ok=True)
    listed = [{"version": v, "what": w, "result": r} for v, w, r in rows]
    (report / f"{name}.json").write_text(json.dumps({"name": name, "unit": "checks", "rows": listed, "peer": peer}))
    return int(any(result == "NO" for _, _, result in rows))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
