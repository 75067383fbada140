#!/usr/bin/env python3
"""The daemon's UpdateService against the real RAUC: two slots in files, a bus of its own, bundles that RAUC itself made.

Needs root (RAUC mounts bundles through a loop device), rauc, dbus-daemon, mksquashfs and openssl.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOARD = "ladewart-test"
SLOT_BYTES = 8 << 20
IMAGE_BYTES = 2 << 20
RUNNING = "2.0"

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""

# What a boot loader keeps: order and state of the slots.
BACKEND = """#!/bin/sh
cd "{work}/boot" || exit 1
case $1 in
get-primary) cat primary ;;
# As U-Boot's: who is to be started has its tries again.
set-primary) echo "$2" >primary; echo good >"$2" ;;
get-state) cat "$2" ;;
set-state) echo "$3" >"$2" ;;
esac
"""

# The image's own hook against older versions, told what runs here.
# While a file "hold" lies there, the installation does not go on.
BEFORE = """#!/bin/sh
while [ -e {work}/hold ]; do sleep 0.1; done
OS_RELEASE={work}/os-release REASON={work}/reason exec {root}/image/files/usr/libexec/ladewart/before-install
"""

SYSTEM = """[system]
compatible={board}
bootloader=custom
bundle-formats=plain
mountprefix={work}/mnt
statusfile={work}/status
[keyring]
path={work}/good.pem
[handlers]
bootloader-custom-backend={work}/backend
pre-install={work}/before
[slot.rootfs.0]
device={work}/a
type=raw
bootname=A
[slot.rootfs.1]
device={work}/b
type=raw
bootname=B
"""

SITE = """[site]
name = "update"
data = "data"
[api]
socket = "{work}/l.sock"
[ocpp]
listen = "127.0.0.1:0"
[update]
spool = "spool"
most = 4194304
confirmed = "confirmed"
restart = "restart"
reason = "reason"
[[node]]
id = "grid"
fuse = "63 A"
"""


class Failed(Exception):
    pass


def check(holds: object, text: str) -> None:
    if not holds:
        raise Failed(text)


def until(what: str, look, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not look():
        check(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Device:
    def __init__(self, work: pathlib.Path, binaries: pathlib.Path) -> None:
        self.work, self.binaries = work, binaries
        self.environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={work}/bus"}
        self.programs: list[subprocess.Popen] = []
        self.rows: list[dict[str, str]] = []

    # Making

    def key(self, name: str) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
             f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "30"],
            cwd=self.work, check=True, capture_output=True,
        )  # fmt: skip

    def bundle(self, version: str, board: str = BOARD, key: str = "good", size: int = IMAGE_BYTES) -> pathlib.Path:
        made = self.work / f"{version}-{board}-{key}-{size}.raucb"
        if made.exists():
            return made
        content = self.work / "content"
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
        (content / "root.img").write_bytes(os.urandom(size))
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={board}\nversion={version}\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=root.img\n"
        )
        command = ["rauc", "bundle", "--cert", f"{key}.pem", "--key", f"{key}.key", "content", made.name]
        subprocess.run(command, cwd=self.work, check=True, capture_output=True)
        return made

    def start(self) -> None:
        work = self.work
        for name in ("good", "stranger"):
            self.key(name)
        for name in ("mnt", "boot", "data"):
            (work / name).mkdir()
        for slot in ("a", "b"):
            (work / slot).write_bytes(bytes(SLOT_BYTES))
            (work / "boot" / slot.upper()).write_text("good\n")
        (work / "boot/primary").write_text("A\n")
        (work / "os-release").write_text(f"IMAGE_VERSION={RUNNING}\n")
        for name, text in (("backend", BACKEND), ("before", BEFORE)):
            (work / name).write_text(text.format(work=work, root=ROOT))
            (work / name).chmod(0o755)
        (work / "bus.conf").write_text(BUS.format(bus=work / "bus"))
        (work / "system.conf").write_text(SYSTEM.format(work=work, board=BOARD))
        (work / "site.toml").write_text(SITE.format(work=work))
        self.run("dbus-daemon", "--config-file", "bus.conf", "--nofork", "--nopidfile")
        until("the bus", (work / "bus").exists)
        self.rauc = self.run("rauc", "--conf=system.conf", "--override-boot-slot=A", "service")
        until("RAUC on the bus", lambda: subprocess.run(
            ["rauc", "status"], env=self.environment, capture_output=True, check=False).returncode == 0)  # fmt: skip
        self.run(str(self.binaries / "ladewartd"), "--config", "site.toml")
        until("the daemon's socket", (work / "l.sock").exists)

    def run(self, *command: str) -> subprocess.Popen:
        log = (self.work / f"{pathlib.Path(command[0]).name}.log").open("ab")
        program = subprocess.Popen(command, cwd=self.work, env=self.environment, stdout=log, stderr=log)
        self.programs.append(program)
        return program

    def end(self) -> None:
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    # Looking

    def ctl(self, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess:
        whole = [str(self.binaries / "ladewartctl"), "--socket", str(self.work / "l.sock"), *command]
        return subprocess.run(whole, input=stdin, capture_output=True, timeout=120, check=False)

    def status(self) -> dict:
        done = self.ctl("-o", "json", "update", "status")
        check(done.returncode == 0, f"update status: {done.stderr.decode()}")
        return json.loads(done.stdout)

    def slot(self, name: str) -> dict:
        return next(slot for slot in self.status()["slots"] if slot["name"] == name)

    def journal(self) -> list[dict]:
        done = self.ctl("-o", "json", "journal", "export")
        check(done.returncode == 0, f"journal export: {done.stderr.decode()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.journal() if entry["kind"].startswith("update.")]

    # The cases

    def refused(self, what: str, bundle: pathlib.Path | bytes, why: str, evidence: bool = True) -> None:
        before, kinds = (self.work / "boot/primary").read_text(), self.kinds()
        if isinstance(bundle, bytes):
            done = self.ctl("update", "install", "-", stdin=bundle)
        else:
            done = self.ctl("update", "install", str(bundle))
        text = done.stderr.decode().strip()
        check(done.returncode == 1, f"{what}: exit code {done.returncode}, not 1: {text}")
        check(why in text, f"{what}: the reason is {text!r}, without {why!r}")
        check((self.work / "boot/primary").read_text() == before, f"{what}: another slot would be started")
        told = ["update.received", "update.refused"] if evidence else []
        check(self.kinds() == kinds + told, f"{what}: the journal says {self.kinds()[len(kinds):]}, not {told}")
        self.nothing_left(what)
        self.rows.append({"bundle": what, "result": text.removeprefix("ladewartctl: ")})

    def nothing_left(self, what: str) -> None:
        left = list((self.work / "spool").iterdir()) if (self.work / "spool").exists() else []
        check(not left, f"{what}: {left} was left")

    def play(self) -> None:
        work = self.work
        good = self.bundle("2.1")
        self.refused("good, but the running system is on trial", good, "on trial", evidence=False)
        check(not self.status().get("confirmed"), "shown as confirmed")
        (work / "confirmed").touch()
        check(self.status()["confirmed"], "not shown as confirmed")

        self.refused("signed by a stranger", self.bundle("2.1", key="stranger"), "signature")
        self.refused("for another board", self.bundle("2.1", board="other"), "ompatible")
        self.refused("older", self.bundle("1.9"), "older than the running 2.0")
        whole = good.read_bytes()
        self.refused("without its end", whole[: len(whole) // 2], "")
        self.refused("one bit changed", whole[:100_000] + bytes([whole[100_000] ^ 1]) + whole[100_001:], "")
        self.refused("no bundle", b"nonsense" * 1000, "")
        self.refused("larger than allowed", self.bundle("2.1", size=6 << 20), "begin.size", evidence=False)

        wanted = self.bundle("2.1")
        before = self.status()["slots"]
        (work / "hold").touch()
        command = [str(self.binaries / "ladewartctl"), "--socket", str(work / "l.sock"), "update", "install", "--restart", str(wanted)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as install:
            # RAUC tells nothing of its slots while it installs.
            until("the installation", lambda: self.status()["installation"].get("state") == "STATE_RUNNING")
            until("RAUC at work", lambda: b"different method" in subprocess.run(
                ["rauc", "status"], env=self.environment, capture_output=True, check=False).stderr)  # fmt: skip
            check(self.status()["slots"] == before, "the slots are not shown while one is written")
            (work / "hold").unlink()
            _, errors = install.communicate(timeout=60)
        check(install.returncode == 0, f"a good one: {errors.decode()}")
        subprocess.run(["unsquashfs", "-q", "-n", "-f", "-d", "out", wanted.name], cwd=work, check=True, capture_output=True)
        written = (work / "out/root.img").read_bytes()
        check((work / "b").read_bytes()[: len(written)] == written, "the other slot does not hold the bundle's image")
        check((work / "a").read_bytes() == bytes(SLOT_BYTES), "the running slot was touched")
        check((work / "boot/primary").read_text().strip() == "B", "the other slot is not started next")
        check((work / "restart").exists(), "no restart was asked for")
        status = self.status()
        check(status["installation"]["state"] == "STATE_INSTALLED", f"shown as {status['installation']}")
        other = self.slot("rootfs.1")
        check(other.get("next") and other["version"] == "2.1", f"shown as {other}")
        check(self.kinds()[-2:] == ["update.received", "update.installed"], f"the journal says {self.kinds()}")
        self.nothing_left("a good one")
        self.rows.append({"bundle": "good", "result": "installed, next to start, restart asked for"})

        (work / "restart").unlink()
        done = self.ctl("update", "rollback")
        check(done.returncode == 0, f"rollback: {done.stderr.decode()}")
        check(not (work / "restart").exists(), "rollback without --restart starts again")
        (work / "boot/B").write_text("bad\n")
        done = self.ctl("update", "rollback", "--restart")
        check(done.returncode == 1 and b"cannot be started" in done.stderr, f"rollback to a bad slot: {done.stderr.decode()}")
        check(self.ctl("update", "confirm").returncode == 0, "confirm failed")
        check((work / "boot/A").read_text().strip() == "good", "the running slot is not marked good")
        check(self.kinds()[-2:] == ["update.rolled_back", "update.confirmed"], f"the journal says {self.kinds()}")

        self.rauc.terminate()
        self.rauc.wait(10)
        done = self.ctl("update", "status")
        check(done.returncode == 1 and b"RAUC" in done.stderr, f"without RAUC: {done.stderr.decode()}")
        self.refused("good, but RAUC is gone", wanted, "RAUC")
        done = self.ctl("journal", "verify")
        check(done.returncode == 0, f"journal verify: {done.stdout.decode()}{done.stderr.decode()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/debug", help="where ladewartd lies")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ladewart-update-") as work:
        device = Device(pathlib.Path(work), options.bin.resolve())
        try:
            device.start()
            device.play()
        except (Failed, OSError, subprocess.SubprocessError) as error:
            for log in sorted(pathlib.Path(work).glob("*.log")):
                print(f"── {log.name}\n{log.read_text(errors='replace')[-3000:]}")
            print(f"failed: {error}")
            return 1
        finally:
            device.end()
        width = max(len(row["bundle"]) for row in device.rows)
        for row in device.rows:
            print(f"   {row['bundle']:{width}}  {row['result']}")
        report = ROOT / "target/report"
        report.mkdir(parents=True, exist_ok=True)
        (report / "update.json").write_text(json.dumps({"name": "update", "unit": "", "rows": device.rows, "peer": "rauc"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
