"""The appliance as it should be: boot, the main job, power cuts, updates, the disk's layout."""

import json
import os
import pathlib
import random
import re
import subprocess
import tempfile
import time
import tomllib

import bundles
import media
from guest import BUILT, PATIENCE, REPO, Guest, parameters
from registry import CONFIRMED, READY, case, check, journal, row
from surroundings import Surroundings

# How often the power is cut, where the moment is by chance.
CUTS = int(os.environ.get("BOOT_CUTS", "20"))


@case(quick=True)
def boot():
    """Factory disk: boots, gets ready, answers `ladewartctl status` over SSH with a key, and nothing else."""
    with Guest("boot") as guest:
        guest.start()
        _, seconds = guest.expect(READY)
        row("power on to READY, first boot", "s", round(seconds, 1))
        row("of that in the kernel and after", "s", float(guest.expect(READY)[0][1]))
        check("not commissioned" in guest.ctl("status"), "the factory site does not show its name")
        guest.expect(CONFIRMED)
        refusals(guest)


def refusals(guest):
    """No shell, no other program, no password, no other account, no forwarding."""
    for words in ([], ["sh"], ["/bin/sh", "-i"], ["ladewartctl;id"], ["scp", "-f", "/etc/passwd"]):
        done = guest.ssh(*words)
        check(done.returncode == 64, f"{words!r} ended with {done.returncode}, not refused: {done.stdout}{done.stderr}")
    tricked = guest.ssh("ladewartctl version $(id) `id` ; id")
    check("uid=" not in tricked.stdout + tricked.stderr, "a substitution was carried out")
    for user in ("root", "ladewart", "nobody"):
        check(guest.ssh("ladewartctl", "status", user=user).returncode == 255, f"{user} was let in")
    methods = guest.ssh("-v", "true", options=("-o", "PreferredAuthentications=none"))
    check(methods.returncode == 255, "no authentication was enough")
    row("ways in besides the key", "", 0)


@case(quick=True)
def power_cut():
    """An acknowledged limit is in the journal after the power went; the host key stays."""
    with Guest("cut") as guest:
        guest.start()
        guest.ctl("limit", "set", "--id", "before-the-cut", "4200")
        before = journal(guest)
        check(any("before-the-cut" in json.dumps(entry) for entry in before), "the limit is not in the journal")
        guest.cut()
        guest.start()
        _, seconds = guest.expect(READY)
        row("power on to READY, after a power cut", "s", round(seconds, 1))
        after = journal(guest)
        check(after[: len(before)] == before, "entries changed or went missing")
        row("journal entries kept over the cut", "", len(before))


@case()
def main_job():
    """Charge points on the LAN, gateway and backend behind the HAN interface: charging, a limit, evidence, a power cut."""
    with tempfile.TemporaryDirectory(prefix="ladewart-site-") as folder, Surroundings(pathlib.Path(folder), 2) as around:
        around.start()
        with Guest("main", site=around.site) as guest:
            guest.start()
            guest.expect(READY)
            guest.ctl("status")
            around.connect(guest.ports["ocpp"])
            around.until("every charge point authorized by the backend", lambda: len({entry["point"] for entry in around.saw("points", "authorized")}) == 2)
            around.command("start")
            around.until("every transaction metered at the backend", lambda: len({entry["point"] for entry in around.saw("backend", "meter")}) == 2)
            row("charge points served through the HAN interface", "", 2)
            began = time.monotonic()
            guest.ctl("limit", "set", "--id", "from-the-grid", "9000", "--reason", "boot-test")
            row("limit set over SSH, call returned", "s", round(time.monotonic() - began, 1))
            stage = lambda: json.loads(guest.ctl("--output", "json", "limit", "list"))["limits"][0]["stage"]  # noqa: E731
            around.until("the limit is effective", lambda: stage() == "LIMIT_STAGE_EFFECTIVE")
            row("limit effective, measured", "s", round(time.monotonic() - began, 1))
            around.command("stop")
            around.until("every stop at the backend", lambda: len({entry["point"] for entry in around.saw("backend", "stop")}) == 2)
            before = journal(guest)
            check(any("from-the-grid" in json.dumps(entry) for entry in before), "the limit is not in the journal")
            guest.cut()
            guest.start()
            guest.expect(READY)
            after = journal(guest)
            check(after[: len(before)] == before, "entries changed or went missing")
            row("journal entries kept over the power cut", "", len(before))


@case()
def hard_kills():
    """Power cuts at twenty random times, each after an acknowledged entry: READY every time, nothing lost."""
    dice = random.Random(7)
    with Guest("kills") as guest:
        acknowledged = []
        for number in range(CUTS):
            guest.start()
            if number % 4 == 3:
                # In the middle of a boot, wherever that is.
                time.sleep(dice.uniform(1, 40))
                guest.cut()
                continue
            guest.expect(READY)
            kept = {json.dumps(entry, sort_keys=True) for entry in journal(guest)}
            lost = [entry for entry in acknowledged if entry not in kept]
            check(not lost, f"after cut {number}: {len(lost)} acknowledged entries are gone")
            guest.ctl("limit", "set", "--id", f"cut-{number}", "4200")
            acknowledged = [json.dumps(entry, sort_keys=True) for entry in journal(guest)]
            guest.cut()
        row("power cuts survived", "", CUTS)
        row("acknowledged entries lost", "", 0)


@case()
def update():
    """A good bundle runs in the other slot with the journal intact; a bad one changes nothing and is named."""
    with Guest("update") as guest:
        guest.start()
        guest.expect(CONFIRMED)
        guest.ctl("limit", "set", "--id", "before-the-update", "4200")
        before = journal(guest)
        for name, (bundle, words) in bundles.bad(guest.folder).items():
            tried = guest.install(bundle)
            _, said = tried.communicate(timeout=PATIENCE)
            check(tried.returncode == 1, f"{name}: exit code {tried.returncode}, not 1: {said}")
            check(re.search(words, said), f"{name}: {said!r} does not say {words!r}")
            row(f"bundle {name}", "", said.strip().removeprefix("ladewartctl: ")[:90])
        slots = json.loads(guest.ctl("-o", "json", "update", "status"))["slots"]
        check([s["name"] for s in slots if s.get("running")] == [s["name"] for s in slots if s.get("next")], "another slot is next")
        before = journal(guest)
        guest.forget()
        began = time.monotonic()
        good = guest.install(BUILT / "update.raucb")
        guest.expect(r"Restarting system|reboot: ")
        good.communicate(timeout=PATIENCE)
        row("upload and installation", "s", round(time.monotonic() - began, 1))
        guest.expect(r"ladewart: slot B, tries left")
        guest.expect(CONFIRMED)
        check(journal(guest)[: len(before)] == before, "the journal changed")
        row("journal entries kept over the update", "", len(before))
        guest.cut()
        guest.start()
        guest.expect(r"ladewart: slot B, tries left A=\d B=2")
        guest.expect(CONFIRMED)


@case()
def power_cut_while_installing():
    """Power cuts at random moments of an installation: a good slot boots each time, journal intact."""
    dice = random.Random(11)
    with Guest("installing") as guest:
        for _ in range(CUTS):
            guest.start()
            guest.expect(CONFIRMED)
            guest.ctl("journal", "verify")
            tried = guest.install(BUILT / "update.raucb")
            while "STATE_RUNNING" not in guest.ctl("-o", "json", "update", "status"):
                check(tried.poll() is None, "the installation ended before it was cut")
            time.sleep(dice.uniform(0, 6))
            guest.cut()
            tried.kill()
            tried.communicate()
        guest.start()
        guest.expect(CONFIRMED)
        row("power cuts while installing, one good slot each time", "", CUTS)


@case(quick=True)
def layout():
    """Disk, RAUC, U-Boot's script and fw_setenv speak of the same partitions and sizes."""
    root = BUILT / "root"
    table = media.names(BUILT / "disk.img")
    config = (root / "etc/rauc/system.conf").read_text(encoding="utf-8")
    script = (REPO / "image/boot/boot.cmd").read_text(encoding="utf-8")
    environment = (root / "etc/fw_env.config").read_text(encoding="utf-8")
    for name in re.findall(r"by-partlabel/(\S+)", config + environment):
        check(name in table, f"there is no partition {name}, but RAUC or fw_setenv wants it")
    for slot in "ab":
        check({f"boot-{slot}", f"root-{slot}"} <= set(table), f"slot {slot} is not on the disk")
        check(media.partition(BUILT / "disk.img", f"root-{slot}")[1] >= (BUILT / "root.img").stat().st_size, "root does not fit")
    size = int(parameters()["UBOOTENV_SIZE"])
    check(int(re.search(r"setenv env_size (\w+)", script)[1], 16) == size, "boot.cmd has another size of the variables")
    check(int(re.search(r"setenv env_blocks (\w+)", script)[1], 16) * 512 == size, "boot.cmd reads another size")
    check(int(environment.split()[-1], 16) == size, "fw_env.config has another size of the variables")
    row("partitions", "", len(table))
    for entry in json.loads((BUILT / "sizes.json").read_text(encoding="utf-8"))["rows"]:
        row(entry["what"], "bytes", entry["bytes"])


@case(quick=True)
def hardening():
    """What systemd, the file system and the build say of the image, without booting it."""
    root = BUILT / "root"
    limits = {
        "ladewartd": 1.9, "ladewart-failsafe": 1.9, "ladewart-ssh": 4.0, "ladewart-confirm": 1.9, "ladewart-restart": 1.9,
        "ladewart-data": 4.0, "nftables": 4.0,
    }  # fmt: skip
    for unit, limit in limits.items():
        text = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", f"--root={root}", "--no-pager", f"{unit}.service"],
            capture_output=True, text=True, check=False,
        ).stdout
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
        check(found, f"systemd-analyze says nothing of {unit}")
        row(f"exposure of {unit}.service", "", float(found[1]))
        check(float(found[1]) <= limit, f"{unit}.service is at {found[1]}, the limit is {limit}")
    special = subprocess.run(
        ["unsquashfs", "-lls", BUILT / "root.squashfs"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    setid = [line for line in special if re.match(r"-..[sS]|-.....[sS]", line)]
    row("set-uid and set-gid files", "", len(setid))
    check(not setid, f"set-uid: {setid}")
    writable = [line for line in special if re.match(r"[-d].......w", line) and not re.search(r"squashfs-root(/var)?/tmp$", line)]
    check(not writable, f"writable by everybody: {writable}")
    with (root / "etc/ladewart/site.toml").open("rb") as file:
        site = tomllib.load(file)
    check(not site.get("evse"), "the factory configuration lets somebody charge")
