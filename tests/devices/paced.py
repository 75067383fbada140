#!/usr/bin/env python3
"""A serial line that takes its time: meters of pymodbus behind a pacer which delays each byte as the line would.

In, on standard input: one JSON line {"definition": path, "units": how many, "baud": …, "bits": per character}. Out: one JSON
line {"at": the master's end}. When its standard input ends, one JSON line {"turnaround": seconds, "requests": how many}: how
long the slaves themselves took in all between the last byte of a request and the first of their answer; and "gap", "gaps":
how long the line was idle in all between the last byte of an answer and the first of the next request.
"""

import asyncio
import json
import os
import random
import select
import sys
import threading
import time
import tty

from peer import Device
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer


class Line:
    """Two pseudo terminals, and between them each byte at its time."""

    def __init__(self, baud: int, bits: int) -> None:
        self.byte = bits / baud
        self.master, master_end = os.openpty()
        self.slave, slave_end = os.openpty()
        for end in (master_end, slave_end, self.master, self.slave):
            tty.setraw(end)
        self.ends = os.ttyname(master_end), os.ttyname(slave_end)
        self.kept = master_end, slave_end
        self.asked = None
        self.turnaround, self.requests = 0.0, 0
        self.answered, self.gap, self.gaps = None, 0.0, 0
        for args in ((self.master, self.slave, True), (self.slave, self.master, False)):
            threading.Thread(target=self.carry, args=args, daemon=True).start()

    def carry(self, source: int, sink: int, asking: bool) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        except OSError:
            pass
        free = 0.0
        while True:
            select.select([source], [], [])
            data = os.read(source, 4096)
            now = time.monotonic()
            if not asking and self.asked is not None:
                self.turnaround += now - self.asked
                self.requests += 1
                self.asked = None
            if asking and self.answered is not None:
                self.gap += now - self.answered
                self.gaps += 1
                self.answered = None
            free = max(free, now)
            for byte in data:
                free += self.byte
                wait = free - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                os.write(sink, bytes([byte]))
            if asking:
                self.asked = time.monotonic()
            else:
                self.answered = time.monotonic()


async def serve() -> None:
    """Serves until the input ends."""
    wish = json.loads(await asyncio.to_thread(sys.stdin.readline))
    line = Line(wish["baud"], wish["bits"])
    meters = []
    for unit in range(1, wish["units"] + 1):
        device = Device(wish["definition"], random.Random(unit))
        device.unit = unit
        meters.append(device.simulated())
    server = ModbusSerialServer(meters, framer=FramerType.RTU, port=line.ends[1], baudrate=115200)
    await server.serve_forever(background=True)
    print(json.dumps({"at": line.ends[0]}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    told = {"turnaround": line.turnaround, "requests": line.requests, "gap": line.gap, "gaps": line.gaps}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
    os._exit(0)
