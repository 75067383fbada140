"""One appliance under QEMU: a disk of its own, its console, its network, a way in over SSH."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
# Which board's image is booted, and on what.
BOARD = os.environ.get("BOOT_BOARD", "qemu-arm64")
BUILT = REPO / "target/image" / BOARD
UBOOT, *MACHINE = {
    "qemu-arm64": ("/usr/lib/u-boot/qemu_arm64/u-boot.bin", "qemu-system-aarch64", "-M", "virt,acpi=off", "-cpu", "cortex-a57"),
    "qemu-armhf": ("/usr/lib/u-boot/qemu_arm/u-boot.bin", "qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"),
}[BOARD]
# Emulation on a busy machine is slow; what does not come at all is the failure to find.
PATIENCE = float(os.environ.get("BOOT_PATIENCE", "900"))


class Failure(Exception):
    """The appliance did not do what it should; the text says what."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def parameters():
    text = (REPO / "image/parameters").read_text(encoding="utf-8")
    return dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', text, re.MULTILINE))


class Guest:
    """The guest's life: provision once, then start, stop or cut as often as a test wants. Use as a context."""

    def __init__(self, name, site=None, networks=(), snapshot=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"ladewart-{name}-"))
        self.disk = self.folder / "disk.img"
        self.console = self.folder / "console.log"
        self.key = self.folder / "key"
        self.process = None
        self.boots = 0
        self.ports = {}
        subprocess.run(["cp", "--sparse=always", snapshot or BUILT / "disk.img", self.disk], check=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        command = [REPO / "image/provision", self.disk, "--key", f"{self.key}.pub"]
        if site:
            command += ["--site", site]
        for file in networks:
            command += ["--network", file]
        subprocess.run(command, check=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.cut()
        if kind is None:
            shutil.rmtree(self.folder)
        else:
            print(f"   console: {self.console}", flush=True)

    def start(self, extra=(), readonly=False):
        """Power on. The console of this boot is read from where the last one ended."""
        self.boots += 1
        self.ports = {"ssh": free_port(), "ocpp": free_port()}
        self.at = self.console.stat().st_size if self.console.exists() else 0
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [
                *MACHINE, "-smp", "2", "-m", "512",
                "-nographic", "-nodefaults", "-bios", UBOOT,
                "-drive", f"if=none,id=disk,file={self.disk},format=raw,cache=writeback{',readonly=on' if readonly else ''}",
                "-device", "virtio-blk-pci,drive=disk,addr=04.0",
                "-netdev", f"user,id=lan,hostfwd=tcp:127.0.0.1:{self.ports['ssh']}-:22"
                f",hostfwd=tcp:127.0.0.1:{self.ports['ocpp']}-:8887",
                "-device", "virtio-net-pci,netdev=lan,addr=05.0,romfile=",
                "-netdev", "user,id=han,net=192.168.77.0/24",
                "-device", "virtio-net-pci,netdev=han,addr=06.0,romfile=",
                "-device", "i6300esb,addr=07.0", "-watchdog-action", "reset",
                "-device", "virtio-rng-pci",
                "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                *extra,
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "qemu.log").open("ab"),
        )

    def cut(self):
        """Power off without notice."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def worked(self):
        """Seconds of processor time that the emulator has used: hardly depends on what else the machine does."""
        words = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def said(self):
        """What the console showed since the start."""
        with self.console.open("rb") as file:
            file.seek(self.at)
            return file.read().decode(errors="replace")

    def expect(self, pattern, patience=PATIENCE):
        """Waits until the console shows it; returns the match and the seconds since the start."""
        end = time.monotonic() + patience
        while True:
            if self.console.exists() and (found := re.search(pattern, self.said())):
                return found, time.monotonic() - self.began
            if self.process.poll() is not None:
                raise Failure(f"QEMU ended with {self.process.returncode} before the console showed {pattern!r}")
            if time.monotonic() > end:
                raise Failure(f"the console did not show {pattern!r} within {patience:.0f} s")
            time.sleep(0.2)

    def forget(self):
        """What comes next is a new boot of the same run."""
        self.at = self.console.stat().st_size
        self.began = time.monotonic()

    def ssh(self, *words, user="ctl", options=(), patience=60):
        """Runs a command; the host key is learnt once and must stay."""
        return subprocess.run(
            [
                "ssh", "-q", "-F", "none", "-p", str(self.ports["ssh"]), "-i", self.key, "-o", "IdentitiesOnly=yes",
                "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "HostKeyAlias=ladewart",
                "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "ConnectTimeout=30", *options,
                f"{user}@127.0.0.1", *words,
            ],
            capture_output=True, text=True, timeout=patience, check=False, stdin=subprocess.DEVNULL,
        )

    def install(self, bundle):
        """Begins to hand an update bundle to the appliance, with a restart at the end; the running `ladewartctl`."""
        with open(bundle, "rb") as file:
            return subprocess.Popen(
                [
                    "ssh", "-q", "-F", "none", "-p", str(self.ports["ssh"]), "-i", self.key, "-o", "BatchMode=yes",
                    "-o", "HostKeyAlias=ladewart", "-o", f"UserKnownHostsFile={self.folder}/known_hosts",
                    "ctl@127.0.0.1", "ladewartctl", "update", "install", "--restart", "-",
                ],
                stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

    def ctl(self, *words):
        """`ladewartctl WORDS` in the guest, once SSH answers; its output."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                done = self.ssh("ladewartctl", *words)
            except subprocess.TimeoutExpired:
                done = None
            if done and done.returncode == 0:
                return done.stdout
            # 255 is ssh's own failure: not there yet.
            if done and done.returncode != 255:
                raise Failure(f"ladewartctl {' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}")
            if time.monotonic() > end:
                raise Failure(f"no SSH within {PATIENCE:.0f} s: {done.stderr if done else 'no answer'}")
            time.sleep(1)
