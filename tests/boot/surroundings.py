"""What a guest's site lives between, from programs of other people: gateway, backend, charge points, meter.

guest han0 --TLS, both certificates--> stunnel --> microsocks (SOCKS5) --> backend (mobilityhouse ocpp)
guest lan0 <-- charge points (mobilityhouse ocpp); guest lan0 --> meter (pymodbus)

Everything runs on this machine's loopback; QEMU's user network shows it to the guest, the HAN's side as 192.168.77.2
through its second interface, the LAN's as 10.0.2.2 through its first.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

from guest import PATIENCE, REPO, Failure, free_port

INTEROP = REPO / "tests/interop"
HAN_HOST = "192.168.77.2"
LAN_HOST = "10.0.2.2"
# Of the key exchange, the certificates and their issuers: what gateways ask for first.
CURVE = "brainpoolP256r1"

GATEWAY = """\
[han-cls]
accept = 127.0.0.1:{han}
connect = 127.0.0.1:{proxy}
cert = {folder}/gw-han.pem
key = {folder}/gw-han.key
CAfile = {folder}/cls.pem
requireCert = yes
verifyPeer = yes
"""

SITE = """\
[site]
name = "boot test"
data = "/var/lib/ladewart"
[api]
socket = "/run/ladewart/ladewartd.sock"
[[api.user]]
uid = 901
role = "admin"
[uplink]
mode = "socks5"
gateway = "{han_host}:{han}"
interface = "han0"
certificate = "cls.pem"
key = "cls.key"
trust = {{ pin = "{pin}" }}
[backend]
url = "ws://127.0.0.1:{backend}/ocpp"
call_timeout = "60 s"
[ocpp]
listen = "0.0.0.0:8887"
[control]
lease = "60 s"
[[node]]
id = "grid"
fuse = "63 A"
meter = "main"
[[meter]]
id = "main"
device = "eastron-sdm630"
address = "{lan_host}:{meter}"
"""


class Surroundings:
    """Certificates and the site's folder at once; the programs with `start`. Use as a context."""

    def __init__(self, folder: pathlib.Path, points: int) -> None:
        sys.path.insert(0, str(INTEROP))
        from gateway import Certificates, common

        self.folder, self.count = folder, points
        self.programs: dict[str, subprocess.Popen] = {}
        self.ports = {name: free_port() for name in ("han", "proxy", "backend", "meter")}
        certificates = Certificates(folder, CURVE)
        (folder / "han.conf").write_text(common(CURVE) + GATEWAY.format(folder=folder, **self.ports), encoding="utf-8")
        self.site = folder / "site"
        self.site.mkdir()
        for name in ("cls.pem", "cls.key"):
            (self.site / name).write_bytes((folder / name).read_bytes())
        text = SITE.format(han_host=HAN_HOST, lan_host=LAN_HOST, pin=certificates.pin("gw-han"), **self.ports)
        for number in range(1, points + 1):
            text += f'[[evse]]\nid = "cp{number:02}"\nidentity = "CP{number:02}"\nmax = "16 A"\n'
        (self.site / "site.toml").write_text(text, encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs.values():
            program.terminate()
        for program in self.programs.values():
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    def run(self, name, *command):
        log = (self.folder / f"{name}.log").open("ab")
        self.programs[name] = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        )

    def start(self):
        """Gateway and backend."""
        self.python = subprocess.run([INTEROP / "setup"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        self.run("backend", self.python, INTEROP / "backend.py", "backend.jsonl", str(self.ports["backend"]))
        self.run("proxy", "microsocks", "-i", "127.0.0.1", "-p", str(self.ports["proxy"]))
        self.run("gateway", "stunnel", str(self.folder / "han.conf"))

    def connect(self, ocpp_port):
        """The charge points, to the guest's OCPP port as this machine sees it; the meter with them."""
        url = f"ws://127.0.0.1:{ocpp_port}"
        self.run("points", self.python, INTEROP / "points.py", str(self.folder), url, str(self.count), str(self.ports["meter"]))

    def command(self, do):
        for number in range(1, self.count + 1):
            self.programs["points"].stdin.write(json.dumps({"do": do, "point": f"CP{number:02}"}).encode() + b"\n")
        self.programs["points"].stdin.flush()

    def saw(self, who, *kinds):
        """What a peer wrote down."""
        from record import read

        return [entry for entry in read(self.folder / f"{who}.jsonl") if entry["kind"] in kinds]

    def until(self, what, look):
        end = time.monotonic() + PATIENCE
        while not look():
            for name, program in self.programs.items():
                if program.poll() is not None:
                    raise Failure(f"{name} ended with {program.returncode}: {(self.folder / f'{name}.log').read_text(errors='replace')[-500:]}")
            if time.monotonic() > end:
                raise Failure(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.5)
