"""The site's side: charge points (mobilityhouse/ocpp) with cars, and the meter that sees them and the house.

Commands come as JSON lines on stdin: {"do": "start" | "stop", "point": "CP01"}. Each charge point writes down a
transaction message when it was answered, and what it was limited to whenever that changes.
"""

import asyncio
import datetime
import json
import logging
import math
import pathlib
import sys
import time
from typing import Any

import websockets
from ocpp.exceptions import OCPPError
from ocpp.routing import after, on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action

from meter import VOLTS, Meter
from profiles import Profiles
from record import Record, now

CAR_AMPS = 16.0
LEAST_AMPS = 6.0
METER_EVERY = 2.0
TICK = 0.1


def present() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Socket(ChargePoint):
    """One connection of a charge point."""

    def __init__(self, point: "Point", socket: Any) -> None:
        super().__init__(point.identity, socket, response_timeout=15)
        self.point = point

    @on(Action.set_charging_profile)
    def on_profile(self, connector_id: int, cs_charging_profiles: dict, **_: Any) -> Any:
        self.point.profiles.set(connector_id, cs_charging_profiles)
        return call_result.SetChargingProfile(status="Accepted")

    @on(Action.clear_charging_profile)
    def on_clear(self, **wanted: Any) -> Any:
        done = self.point.profiles.clear(wanted)
        return call_result.ClearChargingProfile(status="Accepted" if done else "Unknown")

    @on(Action.change_configuration)
    def on_change(self, **_: Any) -> Any:
        return call_result.ChangeConfiguration(status="Accepted")

    @on(Action.get_configuration)
    def on_get(self, key: list | None = None, **_: Any) -> Any:
        return call_result.GetConfiguration(configuration_key=[], unknown_key=key or [])

    @on(Action.trigger_message)
    def on_trigger(self, requested_message: str, **_: Any) -> Any:
        known = requested_message in ("StatusNotification", "MeterValues", "BootNotification", "Heartbeat")
        return call_result.TriggerMessage(status="Accepted" if known else "NotImplemented")

    @after(Action.trigger_message)
    async def after_trigger(self, requested_message: str, **_: Any) -> None:
        await self.point.triggered(requested_message)


class Point:
    """A charge point with one connector and a car that takes what it may."""

    def __init__(self, identity: str, url: str, record: Record) -> None:
        self.identity = identity
        self.url = f"{url}/{identity}"
        self.tag = f"TAG-{identity}"
        self.record = record
        self.profiles = Profiles(CAR_AMPS)
        self.energy_wh = 1000.0 * int(identity[2:])
        self.socket: Socket | None = None
        self.connected = asyncio.Event()
        self.order = asyncio.Lock()
        self.wanted = asyncio.Event()
        self.tx: int | None = None
        self.started: datetime.datetime | None = None
        self.status = "Available"
        self.limit = CAR_AMPS

    # Physics

    def tick(self, seconds: float) -> None:
        limit = self.profiles.amps(present(), self.started)
        if limit != self.limit:
            self.limit = limit
            self.record.add("limit", point=self.identity, amps=limit, draw=self.amps())
        self.energy_wh += self.amps() * VOLTS * 3 * seconds / 3600

    def amps(self) -> float:
        """What the car draws on each phase."""
        if self.tx is None or self.limit < LEAST_AMPS:
            return 0.0
        return min(self.limit, CAR_AMPS)

    def meter_wh(self) -> int:
        return int(self.energy_wh)

    # Connection

    async def stay_connected(self) -> None:
        booted = False
        while True:
            try:
                async with websockets.connect(self.url, subprotocols=["ocpp1.6"]) as socket:
                    self.socket = Socket(self, socket)
                    reading = asyncio.create_task(self.socket.start())
                    try:
                        if not booted:
                            await self.boot()
                            booted = True
                        self.connected.set()
                        await reading
                    finally:
                        reading.cancel()
            except (OSError, websockets.WebSocketException, asyncio.TimeoutError, OCPPError) as error:
                self.record.add("disconnected", point=self.identity, error=f"{type(error).__name__}: {error}")
            self.connected.clear()
            await asyncio.sleep(1)

    async def boot(self) -> None:
        answer = await self.socket.call(
            call.BootNotification(charge_point_vendor="mobilityhouse", charge_point_model="interop"), suppress=False
        )
        self.record.add("booted", point=self.identity, status=answer.status)
        for connector in (0, 1):
            await self.socket.call(self.status_message(connector), suppress=False)
        answer = await self.socket.call(call.Authorize(id_tag=self.tag), suppress=False)
        self.record.add("authorized", point=self.identity, status=answer.id_tag_info["status"])

    async def deliver(self, payload: Any) -> Any:
        """Sends until answered; the order of messages is kept."""
        async with self.order:
            while True:
                await self.connected.wait()
                try:
                    return await self.socket.call(payload, suppress=False)
                except (asyncio.TimeoutError, websockets.WebSocketException, OSError) as error:
                    kind = type(payload).__name__
                    self.record.add("retry", point=self.identity, message=kind, error=type(error).__name__)
                    await asyncio.sleep(1)

    def status_message(self, connector: int = 1) -> Any:
        status = self.status if connector else "Available"
        return call.StatusNotification(connector_id=connector, error_code="NoError", status=status, timestamp=now())

    async def show(self, status: str) -> None:
        if status != self.status:
            self.status = status
            await self.deliver(self.status_message())

    async def triggered(self, message: str) -> None:
        if message == "StatusNotification":
            await self.deliver(self.status_message())
        elif message == "Heartbeat":
            await self.deliver(call.Heartbeat())
        elif message == "MeterValues" and self.tx is not None:
            await self.send_meter("Trigger")

    # Charging

    async def live(self) -> None:
        """One transaction after the other, as commanded."""
        while True:
            await self.wanted.wait()
            await self.show("Preparing")
            answer = await self.deliver(call.Authorize(id_tag=self.tag))
            if answer.id_tag_info["status"] != "Accepted":
                self.record.add("refused", point=self.identity, status=answer.id_tag_info["status"])
                self.wanted.clear()
                continue
            await self.transaction()

    async def transaction(self) -> None:
        meter, timestamp = self.meter_wh(), now()
        answer = await self.deliver(
            call.StartTransaction(connector_id=1, id_tag=self.tag, meter_start=meter, timestamp=timestamp)
        )
        self.tx, self.started = answer.transaction_id, present()
        self.record.add("start", point=self.identity, tx=self.tx, meter=meter, timestamp=timestamp, tag=self.tag)
        while self.wanted.is_set():
            await self.show("Charging" if self.limit >= LEAST_AMPS else "SuspendedEVSE")
            await self.send_meter("Sample.Periodic")
            await asyncio.sleep(METER_EVERY)
        tx, self.tx, self.started = self.tx, None, None
        meter, timestamp = self.meter_wh(), now()
        await self.deliver(
            call.StopTransaction(
                meter_stop=meter, timestamp=timestamp, transaction_id=tx, id_tag=self.tag, reason="Local"
            )
        )
        self.record.add("stop", point=self.identity, tx=tx, meter=meter, timestamp=timestamp)
        await self.show("Finishing")
        await self.show("Available")

    async def send_meter(self, context: str) -> None:
        tx = self.tx
        energy = {"value": str(self.meter_wh()), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        samples = [{**energy, "context": context}]
        for phase in ("L1", "L2", "L3"):
            current = {"value": f"{self.amps():.1f}", "measurand": "Current.Import", "unit": "A", "phase": phase}
            samples.append({**current, "context": context})
        values = [{"timestamp": now(), "sampled_value": samples}]
        await self.deliver(call.MeterValues(connector_id=1, transaction_id=tx, meter_value=values))
        self.record.add("meter", point=self.identity, tx=tx, values=values)


class Site:
    def __init__(self, directory: pathlib.Path, url: str, count: int) -> None:
        self.record = Record(directory / "points.jsonl")
        self.points = {f"CP{i:02}": Point(f"CP{i:02}", url, self.record) for i in range(1, count + 1)}

    def currents(self) -> tuple[float, float, float]:
        """House and cars. The house breathes a little, on each phase in its own time."""
        cars = sum(point.amps() for point in self.points.values())
        house = [6.0 + 2.0 * math.sin(time.monotonic() / 7 + phase) for phase in range(3)]
        return tuple(cars + h for h in house)

    async def physics(self) -> None:
        last, shown = time.monotonic(), None
        while True:
            await asyncio.sleep(TICK)
            seconds, last = time.monotonic() - last, time.monotonic()
            for point in self.points.values():
                point.tick(seconds)
            charging = [point for point in self.points.values() if point.tx is not None]
            sums = (sum(p.limit for p in charging), sum(p.amps() for p in charging), len(charging))
            if sums != shown:
                shown = sums
                self.record.add("sum", setpoints=sums[0], draw=sums[1], charging=sums[2])

    async def obey(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            wanted = self.points[command["point"]].wanted
            wanted.set() if command["do"] == "start" else wanted.clear()

    async def run(self, meter_port: int) -> None:
        meter = Meter(self.currents)
        jobs = [meter.serve("127.0.0.1", meter_port), self.physics(), self.obey()]
        for point in self.points.values():
            jobs += [point.stay_connected(), point.live()]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        # Only the end of stdin is a regular end; whatever else ends is a fault of this program.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.record.add("ended", reads=meter.reads)
        for task in done:
            task.result()


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    where, ocpp_url, how_many, modbus_port = sys.argv[1:]
    asyncio.run(Site(pathlib.Path(where), ocpp_url, int(how_many)).run(int(modbus_port)))
