"""The supplier's backend: mobilityhouse/ocpp as CSMS over plain WebSocket (TLS is stunnel's part).

Writes down each transaction message with the message id it came under. A message that comes again under an id that was
answered before is answered the same and marked: OCPP-J has no other way to say "again".
"""

import asyncio
import itertools
import logging
import pathlib
import sys
from typing import Any

import websockets
from ocpp.routing import after, on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, AuthorizationStatus, MessageTrigger, RegistrationStatus

from record import Record, now

ACCEPTED = {"status": AuthorizationStatus.accepted}


class Station(ChargePoint):
    """One charge point as the backend sees it."""

    def __init__(self, identity: str, socket: Any, backend: "Backend") -> None:
        super().__init__(identity, socket, response_timeout=30)
        self.backend = backend

    def transaction_message(self, kind: str, unique_id: str, answer: Any, **fields: Any) -> Any:
        answers = self.backend.answers
        key = (self.id, unique_id)
        again = key in answers
        if not again:
            answers[key] = answer()
        given = answers[key]
        if kind == "start":
            fields["tx"] = given.transaction_id
        self.backend.record.add(kind, point=self.id, message=unique_id, again=again, **fields)
        return given

    @on(Action.boot_notification)
    def on_boot(self, **_: Any) -> Any:
        self.backend.record.add("boot", point=self.id)
        return call_result.BootNotification(current_time=now(), interval=300, status=RegistrationStatus.accepted)

    @after(Action.boot_notification)
    async def after_boot(self, **_: Any) -> None:
        answer = await self.call(call.TriggerMessage(requested_message=MessageTrigger.status_notification))
        self.backend.record.add("triggered", point=self.id, status=answer.status if answer else "error")

    @on(Action.heartbeat)
    def on_heartbeat(self) -> Any:
        return call_result.Heartbeat(current_time=now())

    @on(Action.status_notification)
    def on_status(self, connector_id: int, status: str, **_: Any) -> Any:
        self.backend.record.add("status", point=self.id, connector=connector_id, status=status)
        return call_result.StatusNotification()

    @on(Action.authorize)
    def on_authorize(self, **_: Any) -> Any:
        return call_result.Authorize(id_tag_info=ACCEPTED)

    @on(Action.start_transaction)
    def on_start(self, meter_start: int, timestamp: str, id_tag: str, call_unique_id: str, **_: Any) -> Any:
        def answer() -> Any:
            return call_result.StartTransaction(transaction_id=next(self.backend.ids), id_tag_info=ACCEPTED)

        return self.transaction_message(
            "start", call_unique_id, answer, meter=meter_start, timestamp=timestamp, tag=id_tag
        )

    @on(Action.meter_values)
    def on_meter(self, meter_value: list, call_unique_id: str, transaction_id: int | None = None, **_: Any) -> Any:
        return self.transaction_message(
            "meter", call_unique_id, call_result.MeterValues, tx=transaction_id, values=meter_value
        )

    @on(Action.stop_transaction)
    def on_stop(self, meter_stop: int, timestamp: str, transaction_id: int, call_unique_id: str, **_: Any) -> Any:
        return self.transaction_message(
            "stop", call_unique_id, call_result.StopTransaction, tx=transaction_id, meter=meter_stop, timestamp=timestamp
        )


class Backend:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.ids = itertools.count(100_001)
        self.answers: dict[tuple[str, str], Any] = {}

    async def accept(self, socket: Any) -> None:
        identity = socket.request.path.rsplit("/", 1)[-1]
        self.record.add("open", point=identity, path=socket.request.path)
        try:
            await Station(identity, socket, self).start()
        finally:
            self.record.add("closed", point=identity)


async def main(file: str, port: str) -> None:
    logging.disable(logging.INFO)
    backend = Backend(Record(pathlib.Path(file)))

    async def accept(socket: Any) -> None:
        try:
            await backend.accept(socket)
        except websockets.ConnectionClosed:
            pass

    # Where the gateway connects to the site, connections are kept ready before anybody asks for an upgrade.
    async with websockets.serve(accept, "127.0.0.1", int(port), subprotocols=["ocpp1.6"], open_timeout=None):
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
