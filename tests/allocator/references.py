"""What could have been delivered on a day, in Wh, by four plans that our plan stands beside."""

import numpy
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import coo_matrix

from days import SLOT, SLOTS, VOLTS, phases

FLOOR = 6.0
# With less to spare than this, in hours, a deadline presses.
PRESSES = 0.5
# Less of a difference decides nothing.
ALIKE = 0.5


class Cars:
    """The sessions of a day as vectors."""

    def __init__(self, day: dict) -> None:
        self.sessions = day["sessions"]
        self.count = len(self.sessions)
        self.uses = numpy.zeros((self.count, 3))
        for k, session in enumerate(self.sessions):
            self.uses[k, phases(day, session)] = 1
        self.node = numpy.array([day["evses"][s["evse"]]["node"] for s in self.sessions])
        self.top = numpy.array([min(32, s["amps"]) for s in self.sessions], dtype=float)
        self.wanted = numpy.array([s["watt_hours"] for s in self.sessions])
        self.begin = numpy.array([s["from"] // SLOT for s in self.sessions])
        self.end = numpy.array([s["to"] // SLOT for s in self.sessions])
        # Wh of one ampere in one slot.
        self.worth = self.uses.sum(1) * VOLTS * SLOT / 3600

    def rooms(self, day: dict, slot: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """What one ampere of each car takes of each constraint, and what is there of it."""
        rows = [self.uses[:, p] for p in range(3)]
        room = [float(max(0, day["fuses"][0] - day["house"][slot]))] * 3
        for n in range(1, len(day["fuses"])):
            rows += [self.uses[:, p] * (self.node == n) for p in range(3)]
            room += [float(day["fuses"][n])] * 3
        rows.append(self.uses.sum(1) * VOLTS)
        room.append(float(min((w for a, b, w in day["limits"] if a <= slot * SLOT < b), default=1e12)))
        return numpy.array(rows), numpy.array(room)


class Program:
    """A linear program, put together row by row."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def row(self, members: list[tuple[int, float]], low: float, high: float) -> None:
        for column, weight in members:
            self.rows.append(len(self.high))
            self.columns.append(column)
            self.values.append(weight)
        self.low.append(low)
        self.high.append(high)

    def matrix(self, columns: int):
        return coo_matrix((self.values, (self.rows, self.columns)), shape=(len(self.high), columns)).tocsr()


def whole_day(day: dict, floors: bool, seconds: float) -> float:
    """Variables: the current of each session in each slot, its energy, and with floors whether it is on."""
    cars = Cars(day)
    at = {(k, t): c for c, (k, t) in enumerate((k, t) for k in range(cars.count) for t in range(cars.begin[k], cars.end[k]))}
    currents = len(at)
    energy = currents
    switch = currents + cars.count
    program = Program()
    most = numpy.zeros(currents)
    for t in range(SLOTS):
        here = [k for k in range(cars.count) if (k, t) in at]
        if not here:
            continue
        take, room = cars.rooms(day, t)
        for k in here:
            uses = take[:, k] > 0
            most[at[k, t]] = min(cars.top[k], (room[uses] / take[uses, k]).min())
            if floors and most[at[k, t]] < FLOOR:
                most[at[k, t]] = 0
        for weights, bound in zip(take, room):
            members = [(k, weights[k]) for k in here if weights[k] > 0 and most[at[k, t]] > 0]
            if sum(most[at[k, t]] * w for k, w in members) > bound:
                program.row([(at[k, t], w) for k, w in members], -numpy.inf, bound)
                if floors:
                    program.row([(switch + at[k, t], w * FLOOR) for k, w in members], -numpy.inf, bound)
    for k in range(cars.count):
        all_slots = [(at[k, t], cars.worth[k]) for t in range(cars.begin[k], cars.end[k])]
        program.row([*all_slots, (energy + k, -1.0)], 0, numpy.inf)
    if floors:
        for c in range(currents):
            program.row([(c, 1.0), (switch + c, -most[c])], -numpy.inf, 0)
            program.row([(c, 1.0), (switch + c, -FLOOR)], 0, numpy.inf)
    size = switch + (currents if floors else 0)
    cost = numpy.zeros(size)
    cost[energy:switch] = -1
    top = numpy.concatenate([most, cars.wanted, (most > 0)[: size - switch].astype(float)])
    result = milp(
        cost,
        constraints=LinearConstraint(program.matrix(size), program.low, program.high),
        bounds=Bounds(0, top),
        integrality=numpy.concatenate([numpy.zeros(switch), numpy.ones(size - switch)]),
        options={"time_limit": seconds, "mip_rel_gap": 0.001},
    )
    bound = result.mip_dual_bound if floors else result.fun
    if bound is None:
        raise SystemExit(f"the program has no optimum: {result.message}")
    return -bound


def optimum(day: dict) -> float:
    """Most energy, with the whole day known in advance, without the 6 A minimum, and free to let one car go empty so
    that another gets more."""
    return whole_day(day, floors=False, seconds=60)


def possible(day: dict, seconds: float) -> float:
    """The same with cars that draw nothing or at least 6 A: what HiGHS has proven that no plan exceeds."""
    return whole_day(day, floors=True, seconds=seconds)


def online(day: dict) -> float:
    """The optimum that knows no car before it comes, and takes the house and the limits to stay as they are: planned
    anew for each slot, with what each car that is there needs by when. Still without the minimum."""
    cars = Cars(day)
    got = numpy.zeros(cars.count)
    for t in range(SLOTS):
        missing = numpy.where((cars.begin <= t) & (t < cars.end), cars.wanted - got, 0)
        here = numpy.flatnonzero(missing > 1e-6)
        if not here.size:
            continue
        take, room = cars.rooms(day, t)
        # Between two departures nothing changes: one variable for all that time.
        cuts = sorted({t, t + 1, *cars.end[here].tolist()})
        spans = list(zip(cuts, cuts[1:]))
        at = {(k, i): c for c, (k, i) in enumerate((k, i) for k in here for i, s in enumerate(spans) if s[1] <= cars.end[k])}
        program = Program()
        for i in range(len(spans)):
            members = [k for k in here if (k, i) in at]
            for weights, bound in zip(take, room):
                if sum(weights[k] * cars.top[k] for k in members) > bound:
                    program.row([(at[k, i], weights[k]) for k in members], -numpy.inf, bound)
        for k in here:
            mine = [(at[k, i], cars.worth[k] * (b - a)) for i, (a, b) in enumerate(spans) if (k, i) in at]
            program.row(mine, -numpy.inf, missing[k])
        # A little more for what is early.
        worth = [cars.worth[k] * (spans[i][1] - spans[i][0]) * (1 - 1e-4 * i) for k, i in at]
        top = [(0, cars.top[k]) for k, _ in at]
        result = linprog([-w for w in worth], A_ub=program.matrix(len(at)), b_ub=program.high, bounds=top, method="highs")
        for k in here:
            got[k] += min(result.x[at[k, 0]] * cars.worth[k], missing[k])
    return float(got.sum())


def ideal(day: dict) -> float:
    """Who goes first and the equal shares of the core, and the same 6 A minimum, but with every car's appetite and
    fullness known, and without dwell, ramp, whole amperes or a moment of delay."""
    cars = Cars(day)
    got = numpy.zeros(cars.count)
    for t in range(SLOTS):
        here = [k for k in range(cars.count) if cars.begin[k] <= t < cars.end[k] and got[k] < cars.wanted[k] - 1e-6]
        if not here:
            continue
        take, left = cars.rooms(day, t)
        amps, most = numpy.zeros(cars.count), numpy.zeros(cars.count)
        most[here] = numpy.minimum(cars.top[here], (cars.wanted[here] - got[here]) / cars.worth[here])
        # Hours to spare if it charged with all it can from now on.
        spare = (cars.end - t - (cars.wanted - got) / cars.worth / cars.top) * SLOT / 3600
        late = [k for k in here if day["deadlines"] and spare[k] < PRESSES]

        def admit(group: list[int]) -> list[int]:
            nonlocal left
            fit = []
            for k in group:
                floor = min(FLOOR, most[k])
                if (take[:, k] * floor <= left + 1e-9).all():
                    left = left - take[:, k] * floor
                    amps[k] = floor
                    fit.append(k)
            return fit

        def give_way(k: int, served: list[int]) -> None:
            """Room for one more floor, where that uses more than it costs those who were served last."""
            nonlocal left
            floor = take[:, k] * min(FLOOR, most[k])
            room, gives = left.copy(), {}
            if (left[floor > 0] <= 1e-6).any():
                return
            for j in reversed(served):
                short = (floor > room + 1e-9) & (take[:, j] > 0)
                if short.any():
                    needs = float(((floor[short] - room[short]) / take[short, j]).max())
                    gives[j] = max(0.0, min(needs, amps[j] - min(FLOOR, most[j])))
                    room = room + take[:, j] * gives[j]
            cost = sum(gave * cars.worth[j] for j, gave in gives.items())
            if (floor <= room + 1e-9).all() and cost < min(FLOOR, most[k]) * cars.worth[k]:
                left = room
                for j, gave in gives.items():
                    amps[j] -= gave

        served: list[int] = []
        for k in sorted(late, key=lambda k: (-cars.uses[k].sum(), spare[k] // ALIKE, cars.end[k])):
            give_way(k, served)
            if admit([k]):
                uses = take[:, k] > 0
                more = max(0.0, min(most[k] - amps[k], (left[uses] / take[uses, k]).min()))
                amps[k] += more
                left = left - take[:, k] * more
                served.append(k)
        rising = admit(sorted((k for k in here if k not in late), key=lambda k: cars.begin[k]))
        rising = [k for k in rising if amps[k] < most[k] - 1e-9]
        while rising:
            rate = take[:, rising].sum(1)
            level = numpy.where(rate > 0, left / numpy.maximum(rate, 1e-12), numpy.inf)
            more = max(0.0, min(float(level.min()), float((most[rising] - amps[rising]).min())))
            amps[rising] += more
            left = left - rate * more
            full = (rate > 0) & (left <= 1e-6)
            rising = [k for k in rising if amps[k] < most[k] - 1e-9 and not (take[full, k] > 0).any()]
        got += amps * cars.worth
    return float(numpy.minimum(got, cars.wanted).sum())
