"""Faults of a slot, of what an update brings, and of the data partition: one case each, so that one can be run alone."""

import json
import re
import time

import bundles
import made
import media
from guest import BUILT, PATIENCE, Guest
from registry import CASES, CONFIRMED, READY, check, journal, row


def slot_fault(name, fault, wanted="B"):
    """One fault of slot A, with a good slot B; a case of its own, so that it can be run alone."""

    def run():
        with Guest("slot") as guest:
            media.write(guest.disk, "boot-b", BUILT / "boot.fit")
            media.write(guest.disk, "root-b", BUILT / "root.img")
            fault(guest.disk)
            guest.start()
            guest.expect(READY)
            tries = re.findall(r"ladewart: slot ([AB]), tries left", guest.said())
            check(tries[-1] == wanted, f"slot {tries[-1]} runs, not {wanted}")
            check(len(tries) <= 4, f"{len(tries)} tries")
            guest.ctl("journal", "verify")
            row(f"{name.replace('_', ' ')}: slot {wanted} runs after tries", "", len(tries))

    run.__doc__ = f"Slot A's {name.replace('_', ' ')}: a good slot runs within three tries more, journal intact."
    CASES[f"slot_{name}"] = (run, False)


def behind_root(disk):
    """The hash tree of slot A."""
    media.wipe(disk, "root-a", after=(BUILT / "root.squashfs").stat().st_size + 4096)


slot_fault("boot_image_damaged", lambda disk: media.damage(disk, "boot-a", 4 << 20))
slot_fault("boot_image_missing", lambda disk: media.wipe(disk, "boot-a"))
slot_fault("root_damaged", lambda disk: media.damage(disk, "root-a", 0))
slot_fault("hash_tree_damaged", behind_root)
slot_fault("root_missing", lambda disk: media.wipe(disk, "root-a"))
slot_fault("variables_damaged", lambda disk: media.damage(disk, "ubootenv", 8), wanted="A")


# A daemon that ends at once, and one that never says that it is ready. Half a minute is long enough to see it.
CRASHING = "#!/bin/sh\nexit 1\n"
SILENT = "#!/bin/sh\nexec sleep 100000\n"
HASTE = "systemd.setenv=LIMIT=30"


def trial_fault(name, make, tries):
    """An update that installs well and does not do: the old slot runs again, the journal as it was."""

    def run():
        with Guest("trial") as guest:
            bundle = make(guest.folder)
            guest.start()
            guest.expect(CONFIRMED)
            guest.ctl("limit", "set", "--id", "before-the-update", "4200")
            before = journal(guest)
            guest.forget()
            began = time.monotonic()
            given = guest.install(bundle)
            guest.expect(r"Restarting system|reboot: ")
            given.communicate(timeout=PATIENCE)
            guest.expect(r"ladewart: slot B, tries left")
            guest.expect(r"ladewart: slot A, tries left[\s\S]*" + READY, patience=2 * PATIENCE)
            seconds = time.monotonic() - began
            seen = re.findall(r"ladewart: slot ([AB]), tries left", guest.said())
            check(seen == ["B"] * tries + ["A"], f"slots {' '.join(seen)}, not {tries} times B, then A")
            guest.expect(CONFIRMED)
            after = journal(guest)
            check(after[: len(before)] == before, "entries changed or went missing")
            slots = json.loads(guest.ctl("-o", "json", "update", "status"))["slots"]
            check([slot["boot_name"] for slot in slots if slot.get("running")] == ["A"], f"slot A does not run: {slots}")
            row(f"update with {name.replace('_', ' ')}: slot A again, tries of B", "", tries)
            row(f"update with {name.replace('_', ' ')}: from the call to READY in A", "s", round(seconds, 1))
            row("journal entries kept over it", "", len(before))

    run.__doc__ = f"An update with {name.replace('_', ' ')}: falls back to the old slot, journal intact."
    CASES[f"trial_{name}"] = (run, False)


def with_daemon(program):
    """A signed bundle whose image is good but for its daemon."""

    def make(folder):
        root, arguments = made.root(folder, "trial", program)
        fit = made.fit(folder, "trial", root_arguments=arguments, arguments=HASTE)
        return bundles.bundle(folder, "trial", images={"root.img": root, "boot.img": fit})

    return make


def with_panic(folder):
    """A signed bundle whose kernel finds no first process."""
    fit = made.fit(folder, "trial", arguments="rdinit=/none init=/none")
    return bundles.bundle(folder, "trial", images={"root.img": BUILT / "root.img", "boot.img": fit})


def with_other_root(folder):
    """A signed bundle whose root is not the one that its boot image names."""
    return bundles.bundle(folder, "trial", images={"boot.img": BUILT / "boot.fit"})


trial_fault("boot_image_of_noise", lambda folder: bundles.bundle(folder, "trial"), 1)
trial_fault("kernel_that_panics", with_panic, 3)
trial_fault("root_of_noise", with_other_root, 3)
trial_fault("daemon_that_crashes", with_daemon(CRASHING), 3)
trial_fault("daemon_never_ready", with_daemon(SILENT), 3)


def data_fault(name, fault=None, problem=None, readonly=False, keyed=False):
    """One fault of the data partition: mended, or named while the appliance runs limited."""

    def run():
        with Guest("data") as guest:
            if fault:
                fault(guest.disk)
            guest.start(readonly=readonly)
            guest.expect(READY)
            if problem:
                guest.expect(problem, patience=60)
            else:
                check("ladewart: data partition:" not in guest.said(), "mended, yet a problem is shown")
            if keyed:
                check("not commissioned" in guest.ctl("status"), "it does not run the factory configuration")
            row(f"data partition {name.replace('_', ' ')}", "", "says so" if problem else "mended")

    run.__doc__ = f"A data partition {name.replace('_', ' ')}: comes up, {'limited, and says so' if problem else 'mended'}."
    CASES[f"data_{name}"] = (run, False)


data_fault("blank", lambda disk: media.wipe(disk, "data"))
data_fault("without_superblock", lambda disk: media.damage(disk, "data", 1024))
data_fault("of_noise", lambda disk: media.fill(disk, "data"), r"ladewart: data partition: the file system is damaged")
data_fault("full", lambda disk: media.crowd(disk, "data", 256 << 10), r"ladewart: data partition: is full", keyed=True)
data_fault("on_a_read_only_medium", None, r"ladewart: data partition: cannot be written", readonly=True, keyed=True)
