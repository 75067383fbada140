"""Boot and root images made of the built ones, with one thing changed."""

import re
import subprocess

from guest import BUILT, REPO
from media import tool


def root(folder, name, daemon):
    """A verified root whose ladewartd is another program; the image, and its part of the kernel's command line."""
    program, image = folder / f"{name}.program", folder / f"{name}.root"
    program.write_text(daemon, encoding="utf-8")
    tool(
        "mksquashfs", BUILT / "root", image, "-noappend", "-quiet", "-no-progress", "-comp", "gzip", "-Xcompression-level", "1",
        "-all-root", "-no-xattrs", "-e", "usr/bin/ladewartd", "-p", f"usr/bin/ladewartd f 755 0 0 cat {program}",
    )  # fmt: skip
    blocks = -(-image.stat().st_size // 4096)
    with image.open("r+b") as file:
        file.truncate(blocks * 4096)
    salt = "00" * 32
    said = tool("veritysetup", "format", f"--salt={salt}", f"--hash-offset={blocks * 4096}", image, image)
    digest = re.search(r"Root hash:\s*(\S+)", said)[1]
    return image, f"ladewart.root={digest} ladewart.salt={salt} ladewart.blocks={blocks}"


def initrd(folder, name, files, init=None):
    """The built initial RAM disk with more files, and with another `init` if one is given."""
    tree = folder / f"{name}.tree"
    for path, text in ({"init": init} if init else {}).items() | files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text, encoding="utf-8")
        (tree / path).chmod(0o755 if path == "init" else 0o644)
    listed = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    more = subprocess.run(
        ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=listed.encode(), cwd=tree, capture_output=True, check=True
    ).stdout
    built = (BUILT / "initrd.img").read_bytes()
    made = folder / f"{name}.initrd"
    # The kernel unpacks archives that follow each other; what comes later wins.
    made.write_bytes(built + b"\0" * (-len(built) % 4) + more)
    return made


def fit(folder, name, *, arguments="", root_arguments=None, initrd_image=None):
    """A boot image as the built one, with more arguments, another root or another initial RAM disk."""
    line = (BUILT / "arguments.cmd").read_text(encoding="utf-8").strip().removesuffix('"')
    if root_arguments:
        line = re.sub(r"ladewart\.(root|salt|blocks)=\S+ ?", "", line).strip() + " " + root_arguments
    command = folder / f"{name}.cmd"
    command.write_text(f'{line} {arguments}"\n', encoding="utf-8")
    text = (BUILT / "fit.its").read_text(encoding="utf-8").replace(str(BUILT / "arguments.cmd"), str(command))
    if initrd_image:
        text = text.replace(str(BUILT / "initrd.img"), str(initrd_image))
    source, made = folder / f"{name}.its", folder / f"{name}.fit"
    source.write_text(text, encoding="utf-8")
    tool("mkimage", "-q", "-f", source, made)
    return made


# Where the initial RAM disk hands over; before it a test may put something into /run.
HANDOVER = "# shellcheck disable=SC2093 # it comes back only if it failed\n"
UNIT = """\
[Unit]
Description=The boot test's look inside
After=ladewart-confirm.service
[Service]
Type=oneshot
ExecStart=/bin/sh /run/look
TimeoutStartSec=infinity
"""


def looking(folder, script):
    """A boot image that runs `script` as root in the otherwise unchanged appliance, once its slot is confirmed."""
    init = (REPO / "image/initrd/init").read_text(encoding="utf-8")
    if HANDOVER not in init:
        raise LookupError("image/initrd/init does not hand over where made.py thinks")
    put = """\
busybox mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /new/run && busybox cp -R /look/. /new/run/ &&
    busybox ln -s ../look.service /new/run/systemd/system/multi-user.target.wants/look.service
"""
    files = {
        "look/look": script,
        "look/systemd/system/look.service": UNIT,
        "look/systemd/system/multi-user.target.wants/.keep": "",
    }
    return fit(folder, "look", initrd_image=initrd(folder, "look", files, init.replace(HANDOVER, put + HANDOVER)))


def blank(folder):
    """The same kernel with nothing but a first process that says so."""
    init = "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs devtmpfs /dev\necho 'empty: up' >/dev/console\nexec /bin/busybox sleep 100000\n"
    return fit(folder, "blank", initrd_image=initrd(folder, "blank", {}, init))
