#!/usr/bin/env python3
"""The plan against the linear optimum, on generated days.

Each day has a tree of fuses, a house, cars that come and go, and on some days a grid limit. The program `allocator`
plays it against the real core; here scipy (HiGHS) finds the most energy that any plan could have delivered, without
the 6 A minimum, the whole amperes and the dwell that the core must keep. Cars take what they may until they are full.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

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
        "deadlines": number % 2 == 0,
    }


def benchmark(random: numpy.random.Generator) -> dict:
    """20 EVSEs, 30 sessions, 43.6 kW: the scenario that other planners were measured with."""
    points = [{"node": 0, "phases": "L1 L2 L3"} for _ in range(20)]
    free = [0] * 20
    sessions = []
    while len(sessions) < 30:
        evse = int(random.integers(0, 20))
        begin, stay = int(random.integers(6 * 12, 18 * 12)), int(random.integers(12, 8 * 12))
        if begin < free[evse] or begin + stay >= SLOTS:
            continue
        free[evse] = begin + stay + 1
        most = 32 * 3 * VOLTS * stay * SLOT / 3600
        energy = float(min(random.uniform(5000, 60000), most))
        sessions.append(
            {"evse": evse, "from": begin * SLOT, "to": (begin + stay) * SLOT, "watt_hours": energy, "amps": 32, "terminals": 3}
        )
    limits = [(SLOT, 86400 - SLOT, 43600)]
    return {"fuses": [500], "house": [0] * SLOTS, "limits": limits, "evses": points, "sessions": sessions, "deadlines": True}


def phases(day: dict, session: dict) -> list[int]:
    wired = [int(p[1]) - 1 for p in day["evses"][session["evse"]]["phases"].split()]
    return wired[: session["terminals"]]


def optimum(day: dict) -> float:
    """Most energy in Wh. Variables: the current of each session in each slot."""
    sessions = day["sessions"]
    columns = [(k, t) for k, s in enumerate(sessions) for t in range(s["from"] // SLOT, s["to"] // SLOT)]
    worth = [len(phases(day, sessions[k])) * VOLTS * SLOT / 3600 for k, _ in columns]
    rows, cols, values, bounds = [], [], [], []

    def constrain(members: list[tuple[int, float]], bound: float) -> None:
        if members:
            for column, weight in members:
                rows.append(len(bounds))
                cols.append(column)
                values.append(weight)
            bounds.append(bound)

    at: dict[int, list[int]] = {}
    of: dict[int, list[int]] = {}
    for column, (k, t) in enumerate(columns):
        at.setdefault(t, []).append(column)
        of.setdefault(k, []).append(column)
    for k, session in enumerate(sessions):
        constrain([(c, worth[c]) for c in of.get(k, [])], session["watt_hours"])
    for t, members in at.items():
        for node, fuse in enumerate(day["fuses"]):
            for phase in range(3):
                here = [
                    (c, 1.0)
                    for c in members
                    if (node == 0 or day["evses"][sessions[columns[c][0]]["evse"]]["node"] == node)
                    and phase in phases(day, sessions[columns[c][0]])
                ]
                constrain(here, fuse - (day["house"][t] if node == 0 else 0))
        for start, end, watts in day["limits"]:
            if start <= t * SLOT < end:
                constrain([(c, len(phases(day, sessions[columns[c][0]])) * VOLTS) for c in members], watts)
    matrix = coo_matrix((values, (rows, cols)), shape=(len(bounds), len(columns))).tocsr()
    top = [(0, min(32, sessions[k]["amps"])) for k, _ in columns]
    result = linprog([-w for w in worth], A_ub=matrix, b_ub=numpy.maximum(bounds, 0), bounds=top, method="highs")
    if not result.success:
        raise SystemExit(f"the linear program failed: {result.message}")
    return -result.fun


def compare(name: str, days: list[dict], program: str) -> dict:
    text = "\n".join(json.dumps(d) for d in days)
    played = subprocess.run([program, "days"], input=text, capture_output=True, text=True, check=False)
    if played.returncode:
        raise SystemExit(f"{program} days failed:\n{played.stderr}")
    outcomes = [json.loads(line) for line in played.stdout.splitlines()]
    best = [optimum(d) for d in days]
    got = [sum(o["delivered"]) for o in outcomes]
    ratios = [g / b for g, b in zip(got, best) if b > 0]
    wanted = sum(s["watt_hours"] for d in days for s in d["sessions"])
    row = {
        "what": name,
        "days": len(days),
        "sessions": sum(len(d["sessions"]) for d in days),
        "wanted_kwh": round(wanted / 1000, 1),
        "optimum_kwh": round(sum(best) / 1000, 1),
        "delivered_kwh": round(sum(got) / 1000, 1),
        "of_optimum": round(sum(got) / sum(best), 5),
        "worst_day": round(min(ratios), 5),
        "violations": sum(o["violations"] for o in outcomes),
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()))
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="the built example `allocator`")
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random = numpy.random.default_rng(options.seed)
    sizes = [4, 8, 12, 20]
    days = [day(random, sizes[n % len(sizes)], n) for n in range(options.days)]
    rows = [
        compare("generated days", days, options.program),
        compare("43.6 kW, 20 EVSEs, 30 sessions", [benchmark(numpy.random.default_rng(options.seed))], options.program),
    ]
    options.report.write_text(json.dumps({"name": "allocator-lp", "unit": "kWh", "rows": rows, "peer": "scipy HiGHS"}, indent=1))
    bad = [r["what"] for r in rows if r["of_optimum"] < 0.99 or r["violations"]]
    if bad:
        print("below 99 % of the optimum, or a cap exceeded: " + ", ".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
