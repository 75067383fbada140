"""Does the layer install what lies in image/, whole and once? Do units, accounts and licences agree with it?"""

import hashlib
import pathlib
import re
import shutil
import subprocess
import tempfile
import tomllib

import metadata
from findings import Finding, assigned, check, metadata_files, name

RECIPES = {
    "ladewart": "yocto/meta-ladewart/recipes-ladewart/ladewart",
    "ladewart-appliance": "yocto/meta-ladewart-distro/recipes-core/ladewart-appliance",
    "ladewart-board": "yocto/meta-ladewart-bsp/recipes-bsp/ladewart-board",
}
# Files of image/files that another layer's recipe installs, from the same place, through these appends.
THROUGH = {
    "etc/fstab": "yocto/meta-ladewart-distro/recipes-core/base-files/base-files_%.bbappend",
    "etc/hosts": "yocto/meta-ladewart-distro/recipes-core/base-files/base-files_%.bbappend",
    "etc/shells": "yocto/meta-ladewart-distro/recipes-core/base-files/base-files_%.bbappend",
    "etc/rauc/system.conf": "yocto/meta-ladewart-distro/dynamic-layers/rauc/recipes-core/rauc/rauc-conf.bbappend",
}
# Highest exposure, as systemd-analyze rates it (0 is closed); tests/boot has the same limits.
EXPOSURE = {
    "ladewartd.service": 1.9, "ladewart-failsafe.service": 1.9, "ladewart-ssh.service": 4.0, "ladewart-confirm.service": 1.9,
    "ladewart-restart.service": 1.9, "ladewart-data.service": 4.0, "nftables.service": 4.0,
}  # fmt: skip


def recipe(tree, which):
    """The recipe's file; its version is part of the name."""
    (path,) = (tree / RECIPES[which]).glob("*.bb")
    return path


def below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


@check
def files(tree):
    """Every file of image/files and of each board is installed by exactly one recipe, and none that is not there."""
    found, owner = [], {}
    there = below(tree / "image/files")
    for which in RECIPES:
        path = recipe(tree, which)
        read = metadata.values(tree, path, ("LADEWART_FILES", "LADEWART_BOARD_FILES"))
        if "error" in read:
            return 0, [Finding(name(tree, path), f"does not parse: {read['error']}", "mend it, then tests/yocto/run files")]
        for file in (read["LADEWART_FILES"] or "").split():
            if file in owner:
                found.append(Finding(name(tree, path), f"installs {file}, which {owner[file]} installs, too", "take it out of one LADEWART_FILES"))
            if file not in there:
                found.append(Finding(name(tree, path), f"installs {file}, which is not in image/files", "take it out of LADEWART_FILES, or add the file"))
            owner[file] = name(tree, path)
        if which == "ladewart-board":
            wanted = set((read["LADEWART_BOARD_FILES"] or "").split())
            for board in sorted((tree / "image/boards").iterdir()):
                has = below(board / "files")
                for file in sorted(has ^ wanted):
                    kind = "has no" if file in wanted else "has a file that no recipe installs:"
                    found.append(Finding(name(tree, board / "files"), f"{kind} {file}", f"add it there, or mend LADEWART_BOARD_FILES in {name(tree, path)}"))
    for file, append in THROUGH.items():
        if (tree / append).exists():
            owner[file] = append
    for file in sorted(there - set(owner)):
        found.append(Finding(f"image/files/{file}", "is installed by no recipe", f"add it to LADEWART_FILES in {name(tree, recipe(tree, 'ladewart-appliance'))} (or of another recipe)"))
    return len(there), found


@check
def units(tree):
    """systemd reads every unit of the image without complaint, and rates the daemons below their limits."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        shutil.copytree(tree / "image/files", root, dirs_exist_ok=True, symlinks=True)
        # Programs that the units start, and units that they wait for, come from packages.
        for program in ("usr/bin/ladewartd", "usr/bin/systemctl", "usr/sbin/dropbear", "usr/sbin/nft"):
            (root / program).parent.mkdir(parents=True, exist_ok=True)
            (root / program).write_text("#!/bin/sh\n", encoding="utf-8")
            (root / program).chmod(0o755)
        for unit in pathlib.Path("/lib/systemd/system").glob("*"):
            if unit.suffix in (".target", ".slice", ".mount") and not (root / "usr/lib/systemd/system" / unit.name).exists():
                shutil.copy(unit, root / "usr/lib/systemd/system" / unit.name)
        names = sorted(path.name for path in (tree / "image/files/usr/lib/systemd/system").iterdir())
        done = subprocess.run(
            ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no", *names], capture_output=True, text=True, check=False, timeout=120
        )
        for line in done.stderr.splitlines():
            unit = next((unit for unit in names if unit in line), names[0])
            found.append(Finding(f"image/files/usr/lib/systemd/system/{unit}", line.replace(str(root), ""), "mend the unit"))
        for unit, limit in EXPOSURE.items():
            done = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", f"--root={root}", "--no-pager", unit],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
            if not level or float(level[1]) > limit:
                what = f"exposure {level[1]}, the limit is {limit}" if level else done.stderr.strip()
                found.append(Finding(f"image/files/usr/lib/systemd/system/{unit}", what, f"see systemd-analyze security --offline=true --root=image/files {unit}"))
    return len(names), found


@check
def accounts(tree):
    """Accounts made by the recipe have the numbers, homes and shells of sysusers.d; enabled units are packaged."""
    found = []
    path = recipe(tree, "ladewart")
    read = metadata.values(tree, path, ("USERADD_PARAM:${PN}", "GROUPADD_PARAM:${PN}", "USERADD_PARAM:ladewart", "GROUPADD_PARAM:ladewart", "SYSTEMD_SERVICE:ladewart"))
    users, groups = read.get("USERADD_PARAM:ladewart") or "", read.get("GROUPADD_PARAM:ladewart") or ""
    text = (tree / "image/files/usr/lib/sysusers.d/ladewart.conf").read_text(encoding="utf-8")
    count = 0
    for kind, who, number, rest in re.findall(r"^([ug])\s+(\S+)\s+(\d+)\s+(.*)$", text, re.MULTILINE):
        count += 1
        if f"--gid {number} {who}" not in groups:
            found.append(Finding(name(tree, path), f"makes no group {who} with the number {number}", "take the numbers of image/files/usr/lib/sysusers.d/ladewart.conf"))
        if kind == "u":
            home, shell = rest.split()[-2:]
            line = next((part for part in users.split(";") if part.strip().endswith(f" {who}")), "")
            for option, value in (("--uid", number), ("--home-dir", home), ("--shell", shell)):
                if f"{option} {value} " not in line:
                    found.append(Finding(name(tree, path), f"account {who} lacks {option} {value}", "take it from image/files/usr/lib/sysusers.d/ladewart.conf"))
    appliance = metadata.values(tree, recipe(tree, "ladewart-appliance"), ("SYSTEMD_SERVICE:ladewart-appliance",))
    packaged = f"{read.get('SYSTEMD_SERVICE:ladewart') or ''} {appliance.get('SYSTEMD_SERVICE:ladewart-appliance') or ''}".split()
    preset = "image/files/usr/lib/systemd/system-preset/10-ladewart.preset"
    enabled = set(re.findall(r"^enable (\S+)$", (tree / preset).read_text(encoding="utf-8"), re.MULTILINE))
    own = {unit for unit in enabled if (tree / "image/files/usr/lib/systemd/system" / unit).exists()}
    for unit in sorted(own ^ set(packaged)):
        where = preset if unit in packaged else name(tree, recipe(tree, "ladewart-appliance"))
        found.append(Finding(where, f"{unit} is enabled in only one of preset and SYSTEMD_SERVICE", "name it in both"))
    return count + len(own), found


@check
def licences(tree):
    """Licence checksums are those of the files; versions are the workspace's; its members are all fetched."""
    found, count = [], 0
    cargo = tomllib.loads((tree / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    version = cargo["package"]["version"]
    digest = hashlib.md5((tree / "LICENSE").read_bytes()).hexdigest()
    for path in metadata_files(tree):
        text = path.read_text(encoding="utf-8")
        for wrong in set(re.findall(r"file://LICENSE;md5=(\w+)", text)) - {digest}:
            found.append(Finding(name(tree, path), f"the licence's checksum is {wrong}, the file's is {digest}", f'write LIC_FILES_CHKSUM = "file://LICENSE;md5={digest}"'))
        count += "LIC_FILES_CHKSUM" in text
        for wrong in re.findall(r'^LICENSE = "(.* (?:OR|AND|WITH) .*)"$', text, re.MULTILINE):
            found.append(Finding(name(tree, path), f'LICENSE "{wrong}" is not in OpenEmbedded\'s form', "write | for OR and & for AND"))
        if path.suffix == ".bb" and path.name.startswith("ladewart") and "_" in path.name and not path.name.endswith(f"_{version}.bb"):
            found.append(Finding(name(tree, path), f"is not named for the workspace's version {version}", f"git mv it to {path.name.split('_')[0]}_{version}.bb"))
    distro = tree / "yocto/meta-ladewart-distro/conf/distro/ladewart.conf"
    if assigned(distro).get("DISTRO_VERSION") != version:
        found.append(Finding(name(tree, distro), f"DISTRO_VERSION is not the workspace's {version}", "write the workspace's version"))
    sources = recipe(tree, "ladewart").read_text(encoding="utf-8")
    for member in cargo["members"]:
        if f"file://{member};" not in sources:
            found.append(Finding(name(tree, recipe(tree, "ladewart")), f"does not fetch the workspace's member {member}", f"add file://{member};subdir=${{BP}} to SRC_URI"))
    return count, found
