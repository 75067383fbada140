#!/usr/bin/env python3
"""The main job against peers that nobody here wrote.

A site of charge points (mobilityhouse/ocpp) and a meter (pymodbus) behind the real daemon; a gateway of stunnel and
dante; a backend (mobilityhouse/ocpp) behind stunnel. Everyone charges, the grid operator limits the site, the uplink is
cut while transactions start, meter and stop, and comes back. At the end the backend must hold exactly the charge points'
transactions. Needs root (network namespaces); `setup` installs the rest.
"""

import argparse
import asyncio
import itertools
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any

import entry
from entry import HERE, ROOT

OCPP_PORT = 8887
METER_PORT = 5020
LIMIT = "interop-1"
VOLTS, PHASES = 230, 3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10, help="charge points (default 10, at least 4)")
    parser.add_argument("--outage", type=float, default=20, help="seconds without uplink (default 20)")
    parser.add_argument(
        "--cut", nargs="*", choices=("gateway", "cable"), default=["gateway", "cable"],
        help="the outages, one after the other. gateway: its TLS is killed; cable: the link is unplugged and nothing "
        "is closed (default: both)",
    )  # fmt: skip
    parser.add_argument("--crash", action="store_true", help="kill the daemon, too, in the middle of each outage")
    parser.add_argument("--trust", choices=("pin", "ca"), default="pin", help="how the gateway is trusted")
    parser.add_argument("--way", default="dante", help="through dante, microsocks, sni, or listen (default dante)")
    parser.add_argument("--curve", help="instead of the way's own, of both TLS legs; secp256r1 is no way's own")
    parser.add_argument(
        "--flaps", type=float, default=0, metavar="SECONDS",
        help="instead of the outages: for so long the gateway's TLS is killed every 5 s and comes back",
    )  # fmt: skip
    entry.common_arguments(parser)
    parser.add_argument(
        "--peers-only", action="store_true", help="without daemon, gateway and limit: the peers alone must agree"
    )
    return parser.parse_args()


class Run:
    def __init__(self, options: argparse.Namespace, directory: pathlib.Path, network: Any) -> None:
        from processes import Processes
        from ways import WAYS

        self.options = options
        self.directory = directory
        self.network = network
        self.processes = Processes(directory)
        self.names = [f"CP{i:02}" for i in range(1, options.points + 1)]
        self.socket = directory / "ladewartd.sock"
        self.begun = time.monotonic()
        self.limit_watts = 4500 * options.points
        self.figures: dict[str, Any] = {}
        self.way = WAYS[options.way](self)
        self.way.curve = options.curve or self.way.curve

    # Views

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun:6.1f} s  {text}", flush=True)

    def points(self, *kinds: str) -> list[dict[str, Any]]:
        return self.entries("points", kinds)

    def backend(self, *kinds: str) -> list[dict[str, Any]]:
        return self.entries("backend", kinds)

    def entries(self, name: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
        from record import read

        return [e for e in read(self.directory / f"{name}.jsonl") if not kinds or e["kind"] in kinds]

    async def ctl(self, *command: str) -> Any:
        """The answer of ladewartctl, as JSON."""
        from processes import Failed

        whole = [str(self.options.bin / "ladewartctl"), "--socket", str(self.socket), "--output", "json", *command]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*whole, stdout=pipe, stderr=pipe)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        if process.returncode != 0:
            raise Failed(f"ladewartctl {' '.join(command)} ended with {process.returncode}: {err.decode().strip()}")
        return json.loads(out)

    # Programs

    async def start_backend(self) -> None:
        from gateway import BACKEND_PORT

        file = str(self.directory / "backend.jsonl")
        command = [sys.executable, str(HERE / "backend.py"), file, str(BACKEND_PORT)]
        await self.processes.start("backend", self.network.inside("emt", *command))
        await self.listening("emt", f"127.0.0.1:{BACKEND_PORT}")

    async def start_points(self, url: str, side: str) -> None:
        command = [sys.executable, str(HERE / "points.py"), str(self.directory), url, str(self.options.points)]
        command = self.network.inside(side, *command, str(METER_PORT))
        self.site = await self.processes.start("points", command, stdin=asyncio.subprocess.PIPE)

    async def start_daemon(self) -> None:
        file = self.directory / "ladewart.toml"
        command = self.network.inside("cls", str(self.options.bin / "ladewartd"), "--config", str(file))
        await self.processes.start("ladewartd", command)
        await self.listening("cls", f"127.0.0.1:{OCPP_PORT}")
        await self.processes.until(self.socket.exists, f"no socket {self.socket}", 10)

    async def listening(self, side: str, address: str) -> None:
        def is_there() -> bool:
            shown = subprocess.run(self.network.inside(side, "ss", "-Hltn"), capture_output=True, text=True)
            return any(line.split()[3] == address for line in shown.stdout.splitlines())

        await self.processes.until(is_there, f"nobody listens on {address}", 20)

    def configuration(self, certificates: Any) -> str:
        from gateway import CHANNEL_PORT
        from network import TARGET

        trust = f'{{ pin = "{certificates.pin("gw-han")}" }}'
        if self.options.trust == "ca":
            trust = '{ ca = "han-ca.pem", name = "smgw.local" }'
        evses = "".join(f'\n[[evse]]\nid = "{n.lower()}"\nidentity = "{n}"\nmax = "16 A"\n' for n in self.names)
        return f"""
[site]
name = "interop"
data = "data"
[api]
socket = "{self.socket}"
{self.way.uplink(trust)}[backend]
url = "ws://{TARGET}:{CHANNEL_PORT}/ocpp"
ping_interval = "5 s"
call_timeout = "10 s"
retry_interval = "5 s"
{self.way.backend()}[ocpp]
listen = "127.0.0.1:{OCPP_PORT}"
[control]
raise_dwell = "2 s"
min_off = "2 s"
lease = "30 s"
[grid]
return_over = "0 s"
[[node]]
id = "grid"
fuse = "{12 * len(self.names) + 8} A"
meter = "main"
[[meter]]
id = "main"
device = "eastron-sdm630"
address = "127.0.0.1:{METER_PORT}"
{evses}"""

    # The story

    def command(self, do: str, *names: str) -> None:
        for name in names:
            self.site.stdin.write(json.dumps({"do": do, "point": name}).encode() + b"\n")

    def charging(self) -> int:
        """How many charge points draw now."""
        sums = self.points("sum")
        return sums[-1]["charging"] if sums and sums[-1]["draw"] > 0 else 0

    def metered(self, least: int, names: list[str]) -> bool:
        seen = [e["point"] for e in self.backend("meter")]
        return all(seen.count(name) >= least for name in names)

    async def booted(self) -> None:
        count = len(self.names)
        until = self.processes.until
        await until(lambda: len(self.points("authorized")) == count, "every charge point authorized", 60)
        await until(lambda: len(self.backend("triggered")) == count, "the backend triggered every point", 60)
        refused = [e for e in self.backend("triggered") if e["status"] != "Accepted"]
        self.figures["backend's calls answered"] = count - len(refused)
        self.say(f"{count} charge points booted, the backend reached each of them")

    async def limited(self) -> None:
        async def effective() -> bool:
            limits = (await self.ctl("limit", "list"))["limits"]
            return any(l["id"] == LIMIT and l["stage"] == "LIMIT_STAGE_EFFECTIVE" for l in limits)

        answer = await self.ctl("limit", "set", str(self.limit_watts), "--id", LIMIT, "--reason", "interop")
        self.say(f"the grid operator limits to {self.limit_watts} W: {answer['limit']['stage']}")
        await self.processes.until(effective, "the limit becomes effective", 60)
        self.say("the limit is effective (measured)")
        self.figures["limit stage"] = "EFFECTIVE"

    async def outage(self, cut: str) -> list[str]:
        """The uplink is away while transactions go on, begin, end, and do both."""
        until, outage_figures = self.processes.until, {}
        charging = sorted(self.charging_names())
        starting = sorted(set(self.names) - set(charging))[:2]
        restarting, stopping = charging[0], charging[1]
        before = len(self.backend("open"))
        instant = time.monotonic()
        if cut == "cable":
            self.network.link("down")
        else:
            await self.processes.stop("han", signal.SIGKILL)
        self.say(f"uplink cut ({cut}): {' and '.join(starting)} start, {restarting} stops and starts, {stopping} stops")
        self.command("start", *starting)
        self.command("stop", restarting)
        await until(lambda: self.since("start", instant) >= set(starting), "transactions start offline", 15)
        await until(lambda: restarting in self.since("stop", instant), "a transaction stops offline", 15)
        if self.options.crash:
            await self.crash()
        ended = {stopping, starting[0]}
        self.command("start", restarting)
        self.command("stop", *ended)
        await until(lambda: restarting in self.since("start", instant), "a transaction starts again offline", 30)
        await until(lambda: self.since("stop", instant) >= ended, "transactions stop offline", 30)
        await asyncio.sleep(max(0.0, self.options.outage - (time.monotonic() - instant)))
        status = (await self.ctl("uplink", "status"))["uplink"]
        during = len(self.backend("start", "meter", "stop"))
        self.say(f"uplink: {status['state']}, {status['last_error'] or 'no error yet'}")
        problems = []
        if status["state"] != "UPLINK_STATE_DOWN":
            problems.append(f"the uplink claims {status['state']} after {self.options.outage:.0f} s without a way ({cut})")
        if cut == "cable":
            self.network.link("up")
        else:
            await self.way.start_han()
        back = time.monotonic()
        outage_figures["seconds"] = round(back - instant, 1)
        self.say(f"uplink back after {back - instant:.1f} s")
        await until(lambda: len(self.backend("start", "meter", "stop")) > during, "messages flow again", 90)
        outage_figures["first message after s"] = round(time.monotonic() - back, 1)
        await until(lambda: self.since("meter", back, self.backend) >= self.charging_names(), "all flow again", 90)
        outage_figures["every point's messages after s"] = round(time.monotonic() - back, 1)
        reconnected = lambda: len(self.backend("open")) - before >= len(self.names)  # noqa: E731
        await until(reconnected, "every point has its connection to the backend again", 60)
        # Some more meter values, live again, before the next thing happens.
        await asyncio.sleep(5)
        status = (await self.ctl("uplink", "status"))["uplink"]
        if status["state"] != "UPLINK_STATE_UP":
            problems.append(f"the uplink claims {status['state']} although it works")
        self.figures[f"outage ({cut})"] = outage_figures
        return problems

    async def flaps(self) -> list[str]:
        """The gateway's TLS dies every 5 s and comes back, while everybody begins and ends transactions."""
        instant, cuts = time.monotonic(), 0
        # The same every time, so that a run can be repeated.
        dice = random.Random(4711)
        while time.monotonic() - instant < self.options.flaps:
            begun = time.monotonic()
            await self.processes.stop("han", signal.SIGKILL)
            cuts += 1
            self.command("stop", *dice.sample(self.names, 2))
            await self.way.start_han()
            self.command("start", *dice.sample(self.names, 3))
            await asyncio.sleep(max(0.0, 5 - (time.monotonic() - begun)))
        back = time.monotonic()
        until, charging = self.processes.until, self.charging_names()
        await until(lambda: self.since("meter", back, self.backend) >= charging, "all flow again", 120)
        self.figures["cuts"] = cuts
        self.figures["connections to the backend"] = len(self.backend("open"))
        self.figures["every point's messages after s"] = round(time.monotonic() - back, 1)
        self.say(f"{cuts} cuts in {back - instant:.0f} s, {len(self.backend('open'))} connections; all flow again")
        status = (await self.ctl("uplink", "status"))["uplink"]
        if status["state"] != "UPLINK_STATE_UP":
            return [f"the uplink claims {status['state']} although it works"]
        return []

    async def crash(self) -> None:
        """The daemon dies without a word and starts again."""
        await self.processes.stop("ladewartd", signal.SIGKILL)
        await self.start_daemon()

        async def all_here() -> bool:
            return all(evse["connected"] for evse in (await self.ctl("evse", "list"))["evses"])

        await self.processes.until(all_here, "every point is connected after the crash", 30)
        self.say("daemon killed and started again; every point is back")

    def since(self, kind: str, instant: float, peer: Any = None) -> set[str]:
        """The charge points of which a peer (the site's, or the given one) saw a message since an instant."""
        from profiles import time_of

        wall = time.time() - (time.monotonic() - instant)
        return {e["point"] for e in (peer or self.points)(kind) if time_of(e["at"]).timestamp() >= wall}

    def charging_names(self) -> set[str]:
        running: set[str] = set()
        for entry in self.points("start", "stop"):
            (running.add if entry["kind"] == "start" else running.discard)(entry["point"])
        return running

    async def finish(self) -> None:
        """All transactions end, everything drains."""
        self.command("stop", *self.names)
        begun = {(e["point"], e["tx"]) for e in self.points("start")}
        ended = lambda: len(self.points("stop")) == len(self.points("start"))  # noqa: E731
        await self.processes.until(ended, f"{len(begun)} transactions end", 60)
        count = lambda entries: sum(not e.get("again") for e in entries)  # noqa: E731
        kinds = ("start", "meter", "stop")
        sent = count(self.points(*kinds))
        try:
            await self.processes.until(lambda: count(self.backend(*kinds)) >= sent, "everything arrives", 120)
        except Exception as error:  # the comparison says what is missing
            self.say(str(error))
        self.say(f"{sent} transaction messages sent, {count(self.backend(*kinds))} at the backend")

    async def evidence(self) -> list[str]:
        problems = []
        evses = (await self.ctl("evse", "list"))["evses"]
        for evse in evses:
            if evse["queued_messages"] or evse["dead_messages"]:
                problems.append(f"{evse['id']}: {evse['queued_messages']} queued, {evse['dead_messages']} dead")
        verified = await self.ctl("journal", "verify")
        self.figures["journal entries"] = verified["entries"]
        if not verified["intact"]:
            problems.append(f"journal broken at {verified['broken_at']}: {verified['problem']}")
        else:
            self.say(f"journal verified: {verified['entries']} entries intact")
        return problems

    async def limit_kept(self) -> list[str]:
        """From 1 s after acceptance until cleared, the setpoints of charging points stay within the limit."""
        from profiles import time_of

        limit = next(l for l in (await self.ctl("limit", "list", "--all"))["limits"] if l["id"] == LIMIT)
        begin = time_of(limit["accepted_at"]).timestamp() + 1.0
        end = time_of(limit["ended_at"]).timestamp()
        sums = [(time_of(e["at"]).timestamp(), e["setpoints"]) for e in self.points("sum")]
        # A sum holds until the next one: the last before the window holds at its beginning.
        held = [(until, amps) for (at, amps), (until, _) in itertools.pairwise(sums) if until > begin and at < end]
        amps = self.limit_watts / VOLTS / PHASES
        worst = max((setpoints for _, setpoints in held), default=0.0)
        problems = [
            f"{until - begin:.1f} s after the limit: setpoints {setpoints:.1f} A above {amps:.1f} A"
            for until, setpoints in held
            if setpoints > amps + 0.05
        ]
        if not held:
            problems.append("nothing was limited")
        self.figures["limit A per phase"] = round(amps, 1)
        self.figures["largest sum of setpoints A"] = worst
        applied = time_of(limit["effective_at"]).timestamp() - time_of(limit["received_at"]).timestamp()
        self.figures["received to effective s"] = round(applied, 2)
        return problems

    async def with_daemon(self) -> list[str]:
        from gateway import Certificates, write_configurations

        certificates = Certificates(self.directory, self.way.curve)
        write_configurations(self.directory, self.way.curve)
        self.way.write(self.directory)
        await self.start_backend()
        await self.way.start()
        self.say(f"gateway stands: {self.way.peers}; backend behind it")
        (self.directory / "ladewart.toml").write_text(self.configuration(certificates))
        await self.start_daemon()
        await self.start_points(f"ws://127.0.0.1:{OCPP_PORT}", "cls")
        await self.booted()
        first = self.names[:-2]
        self.command("start", *first)
        await self.processes.until(lambda: self.metered(2, first), "meter values of every transaction arrive", 90)
        status = (await self.ctl("uplink", "status"))["uplink"]
        self.figures["session"] = status["tls_session"]
        self.say(f"{self.charging()} charging; {status['tls_session']}, proxy reply {status['last_proxy_reply']}")
        await self.limited()
        problems = []
        # stunnel takes no other curve, so this is about what the status says.
        if not status["tls_session"].startswith("TLSv1.2 ") or not status["tls_session"].endswith(f" {self.way.curve}"):
            problems.append(f"the session is {status['tls_session']}, not TLS 1.2 on {self.way.curve}")
        if self.options.flaps:
            problems += await self.flaps()
        for cut in [] if self.options.flaps else self.options.cut:
            problems += await self.outage(cut)
        await self.ctl("limit", "clear", LIMIT)
        await self.finish()
        problems += await self.evidence() + await self.limit_kept()
        code = await self.processes.stop("ladewartd")
        return problems + ([f"ladewartd ended with code {code}"] if code else [])

    async def peers_alone(self) -> list[str]:
        from gateway import BACKEND_PORT

        await self.start_backend()
        await self.start_points(f"ws://127.0.0.1:{BACKEND_PORT}/ocpp", "emt")
        await self.booted()
        self.command("start", *self.names)
        await self.processes.until(lambda: self.metered(2, self.names), "meter values arrive", 60)
        await self.finish()
        return []

    async def run(self) -> int:
        from compare import compare

        try:
            problems = await (self.peers_alone() if self.options.peers_only else self.with_daemon())
            rows = compare(self.points(), self.backend())
        finally:
            await self.processes.stop_all()
        return report(rows, problems, self.figures, self.options, self.way.peers)


def report(
    rows: list[dict[str, Any]], problems: list[str], figures: dict[str, Any], options: Any, gateway: str
) -> int:
    numbers = [key for key in rows[0] if key not in ("point", "differences")] if rows else []
    print()
    width = max(len(key) for key in numbers) if numbers else 0
    total = {"point": "all", **{key: sum(row[key] for row in rows) for key in numbers}, "differences": []}
    print("point  " + "  ".join(f"{key:>{max(len(key), 6)}}" for key in numbers) + "  result")
    for row in [*rows, total]:
        cells = "  ".join(f"{row[key]:>{max(len(key), 6)}}" for key in numbers)
        wrong = len(row["differences"]) if row is not total else sum(len(r["differences"]) for r in rows)
        print(f"{row['point']:5}  {cells}  {'equal' if wrong == 0 else f'{wrong} differences'}")
    print()
    for key, value in figures.items():
        print(f"{key:{max(width, 28)}} {value}")
    differences = [f"{row['point']}: {text}" for row in rows for text in row["differences"]]
    for text in [*differences, *problems]:
        print(f"WRONG: {text}")
    if not rows:
        print("WRONG: no transaction took place")
    failed = bool(differences or problems or not rows)
    if not options.peers_only:
        name = f"interop-{options.way}" if options.flaps else "interop"
        file = ROOT / f"target/report/{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        peer = f"{gateway}, mobilityhouse/ocpp, pymodbus"
        content = {"name": name, "unit": "messages, Wh", "rows": [*rows, total], "figures": figures}
        content |= {"outages": [] if options.flaps else options.cut, "problems": problems, "peer": peer, "passed": not failed}
        file.write_text(json.dumps(content, indent=2) + "\n")
        print(f"figures in {file.relative_to(ROOT)}")
    print("interop: " + ("FAILED" if failed else "passed"))
    return 1 if failed else 0


def main() -> int:
    options = arguments()
    if options.points < 4:
        print("interop: --points must be at least 4", file=sys.stderr)
        return 64
    return entry.main("interop", options.keep, lambda directory, network: Run(options, directory, network).run())


if __name__ == "__main__":
    sys.exit(main())
