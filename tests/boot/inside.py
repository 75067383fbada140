"""What is measured inside the running appliance, beside an image of the same kernel with nothing in it."""

import re
import statistics

import made
import media
from guest import BUILT, REPO, Guest
from registry import CONFIRMED, READY, case, check, row

UNITS = (
    "ladewartd", "ladewart-failsafe", "ladewart-data", "ladewart-ssh", "ladewart-confirm", "ladewart-restart", "nftables", "rauc",
)  # fmt: skip
# Largest resident memory of the daemon, bytes.
MOST_RSS = 64 << 20
BOOTS = 5

LOOK = """\
out() { echo "look: $*" >/dev/console; }
pid=$(systemctl show --value --property=MainPID ladewartd.service)
out rss $(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status)
out peak $(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status)
out memory $(sed -n 's/^MemTotal:[^0-9]*\\([0-9]*\\).*/\\1/p; s/^MemAvailable:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/meminfo)
out ports $(netstat -lntu | awk '$1 ~ /^(tcp|udp)/ { n = split($4, at, ":"); print at[n] "/" substr($1, 1, 3) }' | sort -u)
out kept $(awk '$1 ~ /^\/dev\// && $2 ~ /^\/(data|etc\/ladewart|var\/lib\/ladewart)$/ { print $2 }' /proc/mounts | sort)
out setid $(find / -xdev -perm /6000 -type f | wc -l)
out shells $(awk -F: '$7 !~ /nologin|false/ { print $1 ":" $7 }' /etc/passwd)
out passwords $(awk -F: '$2 !~ /^[!*]/ { print $1 }' /etc/shadow | wc -l)
out failed $(systemctl list-units --failed --plain --no-legend | awk '{ print $1 }')
for unit in @UNITS@; do
    out exposure $unit $(systemd-analyze security --no-pager $unit.service | sed -n 's/.*exposure level for [^:]*: \\([0-9.]*\\).*/\\1/p')
done
out end
"""


HANG = """\
out() { echo "look: $*" >/dev/console; }
daemon() { systemctl show --value --property=$1 ladewartd.service; }
old=$(daemon MainPID)
out hangs $old
kill -STOP $old
while [ "$(daemon MainPID)" = "$old" ] || ! systemctl is-active --quiet ladewartd.service; do sleep 1; done
out restarts $(daemon NRestarts)
out reason $(journalctl --boot --unit=ladewartd.service --output=cat | grep -c 'Watchdog timeout')
out answers $(ladewartctl status >/dev/null && echo yes)
out end
"""


def documented():
    """The ports of image/README.md's table."""
    text = (REPO / "image/README.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| (\d+/(?:tcp|udp)) \|", text, re.MULTILINE))


@case()
def inside():
    """Seen as root inside: the daemon's memory, listening ports as documented, no set-uid file, no shell, exposure of each unit."""
    with Guest("inside") as guest:
        media.write(guest.disk, "boot-a", made.looking(guest.folder, LOOK.replace("@UNITS@", " ".join(UNITS))))
        guest.start()
        guest.expect(r"look: end")
        said = guest.said()

        def seen(what):
            found = re.search(rf"look: {what}\b ?(.*?)\r?\n", said)
            check(found, f"nothing was said of {what}")
            return found[1].split()

        rss = int(seen("rss")[0])
        row("resident memory of ladewartd", "KiB", rss)
        row("most that it ever was", "KiB", int(seen("peak")[0]))
        total, available = (int(word) for word in seen("memory"))
        row("memory of the appliance in use", "KiB", total - available)
        check(rss << 10 <= MOST_RSS, f"ladewartd has {rss} KiB")
        check(seen("kept") == ["/data", "/etc/ladewart", "/var/lib/ladewart"], f"on the data partition: {seen('kept')}")
        ports = set(seen("ports"))
        row("listening ports", "", " ".join(sorted(ports)))
        check(ports == documented(), f"listening: {sorted(ports)}; image/README.md: {sorted(documented())}")
        row("set-uid and set-gid files", "", int(seen("setid")[0]))
        check(seen("setid") == ["0"], "there are set-uid files")
        row("accounts with a password", "", int(seen("passwords")[0]))
        check(seen("passwords") == ["0"], "an account has a password")
        row("accounts with a shell", "", " ".join(seen("shells")))
        check(all(entry.split(":")[1] == "/usr/libexec/ladewart/ctl-shell" for entry in seen("shells") if entry[:5] != "sync:"), "a shell can be had")
        check(not seen("failed"), f"failed units: {seen('failed')}")
        for unit, value in re.findall(r"look: exposure (\S+) ([0-9.]+)", said):
            row(f"exposure of {unit}.service", "", float(value))


@case()
def daemon_that_hangs():
    """A daemon that hangs is killed by its watchdog, and the next one answers."""
    with Guest("hang") as guest:
        media.write(guest.disk, "boot-a", made.looking(guest.folder, HANG))
        guest.start()
        _, from_start = guest.expect(r"look: hangs \d+")
        _, until = guest.expect(r"look: end")
        said = guest.said()
        check(re.search(r"look: restarts 1\b", said), "the daemon was not started again, or more than once")
        check(re.search(r"look: reason [1-9]", said), "it was not the watchdog")
        check(re.search(r"look: answers yes", said), "the next daemon does not answer")
        row("daemon hangs: until the next one answers", "s", round(until - from_start, 1))


@case()
def speed():
    """Power on to READY, median of five, beside the same kernel with nothing to start."""
    with Guest("speed") as guest:
        guest.start()
        guest.expect(CONFIRMED)
        guest.cut()
        kept = guest.folder / "kept.img"
        media.tool("cp", "--sparse=always", guest.disk, kept)
        kinds = {"power on to READY": (BUILT / "boot.fit", READY), "the same kernel, empty": (made.blank(guest.folder), r"empty: up")}
        times, work = {kind: [] for kind in kinds}, {kind: [] for kind in kinds}
        # In turns, so that a machine that is busy for a while is so for both.
        for _ in range(BOOTS):
            for kind, (fit, word) in kinds.items():
                media.tool("cp", "--sparse=always", kept, guest.disk)
                media.write(guest.disk, "boot-a", fit)
                guest.start()
                times[kind].append(guest.expect(word)[1])
                work[kind].append(guest.worked())
                guest.cut()
        for kind in kinds:
            row(f"{kind}, median of {BOOTS}", "s", round(statistics.median(times[kind]), 1))
            row(f"{kind}, from to", "s", f"{min(times[kind]):.1f} {max(times[kind]):.1f}")
            row(f"{kind}, the emulator's processor time", "s", round(statistics.median(work[kind]), 1))
