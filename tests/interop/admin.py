#!/usr/bin/env python3
"""Administration from afar and over the network, through and with peers that nobody here wrote.

The real daemon dials an operator through a gateway of stunnel and dante; the operator runs `ladewartctl reverse-listen`
behind the stunnel at the end of the WAN leg. Each role tries what it may and what it may not; strangers try, too; then
the gateway dies and the cable is unplugged, and the appliance must be gone and come back. grpcio calls, too: on the
appliance's socket at the operator, over TCP with mutual TLS on the site's own network, and at last through a gateway
that connects to the site (mode "listen"). Needs root (network namespaces); `setup` installs the rest.
"""

import argparse
import asyncio
import json
import pathlib
import signal
import sys
import time
from typing import Any

import entry
import journal
import run
from entry import HERE, ROOT
from run import Run

ROLES = ("viewer", "installer", "grid", "supplier", "admin")
LIMITING = ("installer", "grid", "admin")
SITE = "site-4711"
DONE, DENIED, UNREACHABLE = 0, 4, 3
LAN_PORT = 8884

# What grpcio calls, with an empty message; the code is that of somebody who may, with the roles who may.
CALLS = {
    "/ladewart.v1.SiteService/GetSite": ("OK", ROLES),
    "/ladewart.v1.GridService/ClearLimit": ("INVALID_ARGUMENT", LIMITING),
    "/ladewart.v1.JournalService/ExportJournal": ("OK", LIMITING),
    "/ladewart.v1.SystemService/GetVersion": ("OK", ROLES),
    "/grpc.health.v1.Health/Check": ("OK", ROLES),
    "/ladewart.v1.SiteService/Shutdown": ("UNIMPLEMENTED", ROLES),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    entry.common_arguments(parser)
    options = parser.parse_args()
    options.points, options.way, options.curve = 0, "dante", None
    return options


class Admin(Run):
    """One site without charge points, one operator who changes its certificate."""

    def __init__(self, options: argparse.Namespace, directory: pathlib.Path, network: Any) -> None:
        super().__init__(options, directory, network)
        self.rows: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.skip = 0

    def prepare(self) -> None:
        from gateway import ADMIN_PORT, Certificates, write_configurations
        from network import OPERATOR

        certificates = Certificates(self.directory, self.way.curve)
        for ca in ("operators", "sites", "others"):
            certificates.ca(ca)
        certificates.leaf("site", "sites", SITE)
        tables = ""
        for role in ROLES:
            certificates.leaf(role, "operators", OPERATOR)
            fingerprint = certificates.pin(role)
            tables += f'[[api.certificate]]\nfingerprint = "{fingerprint}"\nname = "the-{role}"\nrole = "{role}"\n'
        certificates.leaf("unknown", "operators", OPERATOR)
        certificates.leaf("wrong-ca", "others", OPERATOR)
        certificates.leaf("wrong-name", "operators", "elsewhere.example")
        certificates.leaf("expired", "operators", OPERATOR, days=-1)
        write_configurations(self.directory, self.way.curve)
        self.tables, self.trust = tables, f'{{ pin = "{certificates.pin("gw-han")}" }}'
        self.configure(f"{self.way.uplink(self.trust)}", f'address = "{OPERATOR}:{ADMIN_PORT}"')

    def configure(self, uplink: str, place: str) -> None:
        """The site's configuration, with this way to the operator."""
        roles = ", ".join(f'"{role}"' for role in ROLES)
        (self.directory / "ladewart.toml").write_text(f"""
[site]
name = "interop"
data = "data"
[api]
socket = "{self.socket}"
[api.lan]
listen = "127.0.0.1:{LAN_PORT}"
certificate = "site.pem"
key = "site.key"
ca = "operators.pem"
{uplink}
[ocpp]
listen = "127.0.0.1:{run.OCPP_PORT}"
[[node]]
id = "grid"
fuse = "63 A"
[[operator]]
name = "north"
{place}
ca = "operators.pem"
certificate = "site.pem"
key = "site.key"
roles = [{roles}]
{self.tables}""")

    # The operator

    async def operator(self, certificate: str) -> None:
        """Starts the operator's program with a certificate."""
        from gateway import LISTEN_PORT

        log = self.directory / "operator.log"
        self.skip = len(log.read_text().splitlines()) if log.exists() else 0
        command = [str(self.options.bin / "ladewartctl"), "--output", "json", "reverse-listen"]
        command += ["--listen", f"127.0.0.1:{LISTEN_PORT}", "--ca", str(self.directory / "sites.pem")]
        for kind, end in (("certificate", "pem"), ("key", "key")):
            command += [f"--{kind}", str(self.directory / f"{certificate}.{end}")]
        command += ["--socket-dir", str(self.directory / "appliances")]
        await self.processes.start("operator", self.network.inside("emt", *command))

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self.processes.log("operator").splitlines()[self.skip :]
        return [e for e in map(json.loads, lines) if e["event"] == kind]

    async def told(self, kind: str, count: int = 1, seconds: float = 60) -> dict[str, Any]:
        await self.processes.until(lambda: len(self.events(kind)) >= count, f"reverse-listen tells {kind!r}", seconds)
        return self.events(kind)[count - 1]

    async def remote(self, *command: str) -> tuple[int, str, str]:
        """What the operator types: exit code, output, errors."""
        whole = [str(self.options.bin / "ladewartctl"), "--socket", str(self.directory / f"appliances/{SITE}.sock")]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*whole, *command, stdout=pipe, stderr=pipe)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode or 0, out.decode(), err.decode().strip()

    async def expect(self, who: str, code: int, *command: str) -> str:
        began = time.monotonic()
        got, out, err = await self.remote(*command)
        took = round((time.monotonic() - began) * 1000)
        name = " ".join(command[:2])
        self.rows.append({"certificate": who, "call": name, "exit": got, "expected": code, "ms": took, "says": err})
        print(f"          {who:12} {name:16} exit {got}  {took:5} ms  {err}", flush=True)
        if got != code:
            self.problems.append(f"{who}: {name} ended with {got} instead of {code}: {err or out}")
        return out

    async def grpcio(self, over: str, who: str, codes: dict[str, str]) -> None:
        """Each call by another implementation of gRPC: on the appliance's socket, over the network, or coming in."""
        from ways import TO_GATEWAY_ADMIN_PORT

        if over != "dialed":
            files = ["-", "-"] if who == "nobody" else [f"{who}.pem", f"{who}.key"]
            port = LAN_PORT if over == "network" else TO_GATEWAY_ADMIN_PORT
            target = [f"127.0.0.1:{port}", SITE, "sites.pem", *files]
        else:
            target = [f"unix:appliances/{SITE}.sock", "-", "-", "-", "-"]
        command = [sys.executable, str(HERE / "caller.py"), *target, *CALLS]
        whole = self.network.inside("cls" if over == "network" else "emt", *command)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*whole, cwd=self.directory, stdout=pipe)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        got = json.loads(out)
        print(f"          {who:12} grpcio, {over}: " + " ".join(got.values()), flush=True)
        for call, code in got.items():
            self.rows.append({"certificate": who, "over": over, "call": call, "code": code, "expected": codes[call]})
            if code != codes[call]:
                self.problems.append(f"{who}, {over}: {call} gave {code} instead of {codes[call]}")

    def codes(self, role: str) -> dict[str, str]:
        return {call: code if role in roles else "PERMISSION_DENIED" for call, (code, roles) in CALLS.items()}

    # The story

    async def network_roles(self) -> None:
        await self.listening("cls", f"127.0.0.1:{LAN_PORT}")
        for role in ROLES:
            await self.grpcio("network", role, self.codes(role))
        await self.grpcio("network", "unknown", dict.fromkeys(CALLS, "PERMISSION_DENIED"))
        for stranger in ("nobody", "wrong-ca", "expired"):
            await self.grpcio("network", stranger, dict.fromkeys(CALLS, "UNAVAILABLE"))

    async def coming(self) -> None:
        """The gateway connects to the site, and the operator comes in through it."""
        from ways import COMING_ADMIN_PORT, WAYS
        from network import HAN_CLS

        for name in ("ladewartd", "han", "danted", "wan", "emt"):
            await self.processes.stop(name)
        way = WAYS["listen"](self)
        # The certificates are those of the way before.
        way.curve = self.way.curve
        way.write(self.directory)
        await way.start_wan()
        await way.start_han()
        self.configure(way.uplink(self.trust), 'target = "operator"')
        await self.start_daemon()
        await self.listening("cls", f"{HAN_CLS}%han0:{COMING_ADMIN_PORT}")
        self.say("gateway stands: stunnel connects to the site")
        for role in ROLES:
            await self.grpcio("coming", role, self.codes(role))
        await self.grpcio("coming", "unknown", dict.fromkeys(CALLS, "PERMISSION_DENIED"))
        for stranger in ("nobody", "wrong-ca", "expired"):
            await self.grpcio("coming", stranger, dict.fromkeys(CALLS, "UNAVAILABLE"))
        status = (await self.ctl("uplink", "status"))["uplink"]
        self.say(f"uplink: {status['refused_connections']} refused, the last: {status['last_refusal']}")
        if "operator north: TLS: " not in status["last_refusal"]:
            self.problems.append(f"the uplink tells of no refusal: {status}")
        await self.processes.stop("han", signal.SIGKILL)
        await way.start_han()
        await self.grpcio("coming", "grid", self.codes("grid"))

    async def roles(self) -> None:
        for role in ROLES:
            await self.operator(role)
            seen = await self.told("connected")
            if (seen["name"], seen["subject"]) != (SITE, f"CN={SITE}"):
                self.problems.append(f"the appliance is shown as {seen}")
            may = DONE if role in LIMITING else DENIED
            await self.expect(role, DONE, "status")
            await self.expect(role, may, "limit", "set", "4200 W", "--id", f"l-{role}", "--reason", "from afar")
            await self.expect(role, may, "limit", "clear", f"l-{role}")
            await self.expect(role, may, "journal", "export")
            await self.expect(role, DONE, "uplink", "status")
            await self.grpcio("dialed", role, self.codes(role))
            await self.processes.stop("operator")
        limits = (await self.ctl("limit", "list", "--all"))["limits"]
        issuers = {l["id"]: (l["issuer"], l["role"]) for l in limits}
        if issuers != {f"l-{role}": (f"cert:the-{role}", role) for role in LIMITING}:
            self.problems.append(f"the site knows the limits {issuers}")

    async def strangers(self) -> None:
        await self.operator("unknown")
        await self.told("connected")
        await self.expect("unknown", DENIED, "status")
        await self.processes.stop("operator")
        for certificate, alert in (("wrong-ca", "UnknownCA"), ("wrong-name", "BadCertificate")):
            await self.operator(certificate)
            reason = (await self.told("refused"))["reason"]
            self.say(f"{certificate}: {reason}")
            self.rows.append({"certificate": certificate, "call": "handshake", "says": reason})
            if alert not in reason or self.events("connected"):
                self.problems.append(f"{certificate}: {reason}")
            await self.processes.stop("operator")

    async def cuts(self) -> None:
        await self.operator("grid")
        await self.told("connected")
        await self.expect("grid", DONE, "limit", "set", "6 kW", "--id", "kept")
        for n, cut in enumerate(("gateway", "cable"), 1):
            began = time.monotonic()
            if cut == "gateway":
                await self.processes.stop("han", signal.SIGKILL)
            else:
                self.network.link("down")
            await self.told("gone", n, 90)
            gone = time.monotonic() - began
            await self.expect("grid", UNREACHABLE, "status")
            if cut == "gateway":
                await self.way.start_han()
            else:
                self.network.link("up")
            back = time.monotonic()
            await self.told("connected", n + 1, 120)
            figures = {"gone after s": round(gone, 1), "back after s": round(time.monotonic() - back, 1)}
            self.figures[f"cut ({cut})"] = figures
            self.say(f"cut ({cut}): {figures}")
            out = await self.expect("grid", DONE, "limit", "list")
            if "cert:the-grid" not in out:
                self.problems.append(f"the limit is not there after the cut: {out}")
        await self.expect("grid", DONE, "limit", "clear", "kept")
        await self.processes.stop("operator")

    async def evidence(self) -> list[str]:
        problems = await super().evidence()
        text = self.directory / "journal.jsonl"
        pipe = text.open("wb")
        command = [str(self.options.bin / "ladewartctl"), "--socket", str(self.socket), "-o", "json"]
        process = await asyncio.create_subprocess_exec(*command, "journal", "export", stdout=pipe)
        await process.wait()
        kinds = [json.loads(line)["kind"] for line in text.read_text().splitlines()]
        first, last, signatures, _ = journal.verify(text.read_text(encoding="utf-8").splitlines())
        self.figures["journal by hashlib and openssl"] = f"{first} to {last} intact, {signatures} signatures"
        begun, ended = kinds.count("remote.connected"), kinds.count("remote.disconnected")
        self.figures["sessions in the journal"] = f"{begun} begun, {ended} ended"
        self.figures["refusals in the journal"] = kinds.count("call.refused")
        if begun < len(ROLES) + 4 or kinds.count("call.refused") < 3:
            problems.append(f"the journal holds too little: {sorted(set(kinds))}")
        return problems

    async def run(self) -> int:
        try:
            self.prepare()
            await self.way.start()
            self.say("gateway stands: stunnel, dante, stunnel")
            await self.start_daemon()
            await self.network_roles()
            await self.roles()
            await self.strangers()
            await self.cuts()
            await self.coming()
            self.problems += await self.evidence()
            code = await self.processes.stop("ladewartd")
            self.problems += [f"ladewartd ended with code {code}"] if code else []
        finally:
            await self.processes.stop_all()
        return self.report()

    def report(self) -> int:
        print()
        for key, value in self.figures.items():
            print(f"{key:28} {value}")
        for text in self.problems:
            print(f"WRONG: {text}")
        file = ROOT / "target/report/admin.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"name": "admin", "unit": "exit code", "rows": self.rows, "figures": self.figures}
        content |= {"problems": self.problems, "peer": "stunnel4, dante-server, grpcio", "passed": not self.problems}
        file.write_text(json.dumps(content, indent=2) + "\n")
        print(f"figures in {file.relative_to(ROOT)}")
        print("admin: " + ("FAILED" if self.problems else "passed"))
        return 1 if self.problems else 0


def main() -> int:
    options = arguments()
    return entry.main("admin", options.keep, lambda directory, network: Admin(options, directory, network).run())


if __name__ == "__main__":
    sys.exit(main())
