"""Days, generated: a tree of fuses, a house, cars that come and go, and on some days a grid limit."""

import numpy

SLOT = 300
SLOTS = 86400 // SLOT
VOLTS = 230.0
WIRINGS = ["L1 L2 L3", "L2 L3 L1", "L3 L1 L2", "L2 L3 L1", "L1", "L3"]


def day(random: numpy.random.Generator, evses: int, number: int) -> dict:
    """A day as the program takes it."""
    feeders = int(random.integers(0, 3))
    fuses = [int(random.integers(2 * evses, 5 * evses + 1)) + 20]
    fuses += [int(random.integers(32, 81)) for _ in range(feeders)]
    points = []
    for _ in range(evses):
        node = int(random.integers(0, feeders + 1))
        points.append({"node": node, "phases": WIRINGS[int(random.integers(0, len(WIRINGS)))]})
    # A house with a morning and an evening, in whole amperes.
    time = numpy.arange(SLOTS) / 12.0
    shape = 2 + 6 * numpy.exp(-((time - 7.5) ** 2) / 2) + 9 * numpy.exp(-((time - 19) ** 2) / 6)
    house = numpy.clip(shape + random.normal(0, 1, SLOTS), 0, 18).round().astype(int)
    limits = []
    if number % 3 == 0:
        start = int(random.integers(6 * 12, 20 * 12)) * SLOT
        limits.append((start, start + int(random.integers(6, 25)) * SLOT, int(random.integers(8, 40)) * 1000))
    sessions = []
    for evse in range(evses):
        begin = int(random.integers(0, 9 * 12))
        for _ in range(int(random.integers(1, 3))):
            stay = int(random.integers(2 * 12, 9 * 12))
            if begin + stay >= SLOTS:
                break
            terminals = int(random.choice([1, 2, 3, 3, 3]))
            amps = 16 if terminals > 1 else int(random.choice([16, 20, 32]))
            used = min(terminals, points[evse]["phases"].count("L"))
            most = amps * used * VOLTS * stay * SLOT / 3600
            energy = float(min(random.uniform(3000, 45000), 0.98 * most))
            sessions.append(
                {
                    "evse": evse,
                    "from": begin * SLOT,
                    "to": (begin + stay) * SLOT,
                    "watt_hours": energy,
                    "amps": amps,
                    "terminals": terminals,
                }
            )
            begin += stay + int(random.integers(2, 30))
    return {
        "fuses": fuses,
        "house": [int(h) for h in house],
        "limits": limits,
        "evses": points,
        "sessions": sessions,
        "deadlines": True,
    }


def taken(sessions: list[dict], evse: int, begin: int, end: int) -> bool:
    """Whether somebody stands there then, or leaves within the slot before."""
    return any(s["evse"] == evse and begin * SLOT <= s["to"] and s["from"] <= end * SLOT for s in sessions)


def benchmark(random: numpy.random.Generator) -> dict:
    """20 EVSEs, 30 sessions, 43.6 kW: the scenario that other planners were measured with."""
    points = [{"node": 0, "phases": "L1 L2 L3"} for _ in range(20)]
    sessions: list[dict] = []
    while len(sessions) < 30:
        evse = int(random.integers(0, 20))
        begin, stay = int(random.integers(6 * 12, 18 * 12)), int(random.integers(12, 8 * 12))
        if begin + stay >= SLOTS or taken(sessions, evse, begin, begin + stay):
            continue
        most = 32 * 3 * VOLTS * stay * SLOT / 3600
        energy = float(min(random.uniform(5000, 60000), most))
        sessions.append(
            {"evse": evse, "from": begin * SLOT, "to": (begin + stay) * SLOT, "watt_hours": energy, "amps": 32, "terminals": 3}
        )
    limits = [(SLOT, 86400 - SLOT, 43600)]
    return {"fuses": [500], "house": [0] * SLOTS, "limits": limits, "evses": points, "sessions": sessions, "deadlines": True}


def written(random: numpy.random.Generator) -> dict:
    """The same as it was written down for those planners: EVSEs of one phase each, 43.6 kW, 5-minute steps."""
    points = [{"node": 0, "phases": f"L{1 + n % 3}"} for n in range(20)]
    sessions: list[dict] = []
    while len(sessions) < 30:
        evse = int(random.integers(0, 20))
        begin, stay = int(random.integers(7 * 12, 16 * 12)), int(random.integers(18, 6 * 12))
        if taken(sessions, evse, begin, begin + stay):
            continue
        energy = float(random.uniform(10000, 24000))
        sessions.append(
            {"evse": evse, "from": begin * SLOT, "to": (begin + stay) * SLOT, "watt_hours": energy, "amps": 32, "terminals": 1}
        )
    limits = [(SLOT, 86400 - SLOT, 43600)]
    return {"fuses": [500], "house": [0] * SLOTS, "limits": limits, "evses": points, "sessions": sessions, "deadlines": True}


def uncontrolled(day: dict) -> tuple[float, float]:
    """Wh, and the highest sum of currents in A, if everybody took all at once."""
    energy, currents = 0.0, numpy.zeros(SLOTS)
    for session in day["sessions"]:
        each = session["amps"] * len(phases(day, session)) * VOLTS * SLOT / 3600
        begin, end = session["from"] // SLOT, session["to"] // SLOT
        slots = min(end - begin, session["watt_hours"] / each)
        energy += slots * each
        currents[begin : begin + int(numpy.ceil(slots))] += session["amps"]
    return energy, float(currents.max())


def garage(random: numpy.random.Generator, evses: int, number: int) -> dict:
    """A day of the same kind: three-phase cars and a budget for half of them; sizes, cars and fuses vary."""
    points = [{"node": 0, "phases": WIRINGS[int(random.integers(0, 3))]} for _ in range(evses)]
    sessions: list[dict] = []
    for _ in range(20 * evses):
        evse = int(random.integers(0, evses))
        begin, stay = int(random.integers(6 * 12, 18 * 12)), int(random.integers(12, 8 * 12))
        if len(sessions) == 3 * evses // 2:
            break
        if begin + stay >= SLOTS or taken(sessions, evse, begin, begin + stay):
            continue
        amps = int(random.choice([16, 16, 32]))
        most = amps * 3 * VOLTS * stay * SLOT / 3600
        energy = float(min(random.uniform(5000, 60000), most))
        sessions.append(
            {"evse": evse, "from": begin * SLOT, "to": (begin + stay) * SLOT, "watt_hours": energy, "amps": amps, "terminals": 3}
        )
    time = numpy.arange(SLOTS) / 12.0
    shape = 2 + 4 * numpy.exp(-((time - 8) ** 2) / 4) + 4 * numpy.exp(-((time - 17) ** 2) / 6)
    house = numpy.clip(shape + random.normal(0, 1, SLOTS), 0, 12).round().astype(int)
    watts = int(2180 * evses * random.uniform(0.8, 1.4))
    limits = [(SLOT, 86400 - SLOT, watts)] if number % 2 else []
    fuse = 500 if number % 2 else max(35, watts // 690) + 8
    return {
        "fuses": [fuse],
        "house": [int(h) for h in house],
        "limits": limits,
        "evses": points,
        "sessions": sessions,
        "deadlines": True,
    }


def phases(day: dict, session: dict) -> list[int]:
    wired = [int(p[1]) - 1 for p in day["evses"][session["evse"]]["phases"].split()]
    return wired[: session["terminals"]]
