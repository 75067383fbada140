"""The meter at the grid connection: pymodbus as an Eastron SDM630 (function 4, 32-bit floats, high word first)."""

import struct
import time
from typing import Callable

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

VOLTS = 230.0
REGISTERS = 0x80


class Meter:
    """Measures what a function says flows on the three phases, in A."""

    def __init__(self, currents: Callable[[], tuple[float, float, float]]) -> None:
        self.currents = currents
        self.imported_kwh = 4711.0
        self.last = time.monotonic()
        self.reads = 0

    def values(self) -> dict[int, float]:
        amps = self.currents()
        watts = [VOLTS * a for a in amps]
        present = time.monotonic()
        self.imported_kwh += sum(watts) * (present - self.last) / 3.6e6
        self.last = present
        found = {0x34: sum(watts), 0x46: 50.0, 0x48: self.imported_kwh, 0x4A: 0.0}
        for phase in range(3):
            found[2 * phase] = VOLTS
            found[0x06 + 2 * phase] = amps[phase]
            found[0x0C + 2 * phase] = watts[phase]
        return found

    async def read(self, function, start, _address, _count, registers, written):  # noqa: ANN001, ANN201
        if function != 4 or written is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        self.reads += 1
        for register, value in self.values().items():
            registers[register - start : register - start + 2] = struct.unpack(">HH", struct.pack(">f", value))
        return None

    async def serve(self, address: str, port: int) -> None:
        registers = SimData(0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(id=1, simdata=[registers], action=self.read)
        await ModbusTcpServer(device, address=(address, port)).serve_forever()
