"""Seeded faults: each is put into a copy of the tree, and the check for it must fail, name the file and say what to do."""

import pathlib
import re
import shutil
import tempfile

from findings import CHECKS

RECIPE = "yocto/meta-ladewart/recipes-ladewart/ladewart/ladewart_0.1.0.bb"
IMAGE = "yocto/meta-ladewart-distro/recipes-core/images/ladewart-image.bb"
BOARD = "yocto/meta-ladewart-bsp/recipes-bsp/ladewart-board/ladewart-board_0.1.0.bb"
DISTRO = "yocto/meta-ladewart-distro/conf/distro/ladewart.conf"
CRATES = "yocto/meta-ladewart/recipes-ladewart/ladewart/ladewart-crates.inc"
WKS = "yocto/meta-ladewart-bsp/files/wic/ladewart-ab.wks.in"
RAUC = "image/files/etc/rauc/system.conf"
UNIT = "image/files/usr/lib/systemd/system/ladewart-new.service"


def change(file, old, new):
    """Replaces a text of a file; the text must be there, or the fault would be none."""

    def apply(tree):
        text = (tree / file).read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r}: the seeded fault must follow the file"
        (tree / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def add(file, text):
    def apply(tree):
        path = tree / file
        path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + text, encoding="utf-8")

    return apply


# What, how, the check that must fail, the file it must name, what it must say.
FAULTS = [
    ("unclosed quote", change(IMAGE, 'IMAGE_LINGUAS = ""', 'IMAGE_LINGUAS = "'), "parse", IMAGE, "tests/yocto/run parse"),
    ("Python error in an anonymous function", add(IMAGE, "\npython () {\n    d.setVar('A', )) \n}\n"), "parse", IMAGE, "tests/yocto/run parse"),
    ("require of what is not there", add(IMAGE, "\nrequire ladewart-nowhere.inc\n"), "parse", IMAGE, "ladewart-nowhere.inc"),
    ("old override syntax", add(IMAGE, '\nIMAGE_INSTALL_append = " bash"\n'), "parse", IMAGE, "override syntax"),
    ("unknown class", change(BOARD, "inherit ladewart_files", "inherit ladewart_files ladewart_nothing"), "parse", BOARD, "ladewart_nothing"),
    ("crates list behind Cargo.lock", change(CRATES, "crate://crates.io/serde/", "crate://crates.io/serde/0."), "crates", CRATES, "run yocto/update-crates"),
    ("unit in image/, not in the layer", add(UNIT, "[Service]\nExecStart=/usr/bin/true\n"), "files", UNIT, "LADEWART_FILES"),
    ("file in the layer, not in image/", change(BOARD, "board/lines", "board/rows"), "files", "image/boards/", "LADEWART_BOARD_FILES"),
    ("partition that RAUC does not know", add(WKS, "part --source empty --part-name spare --fixed-size ${LADEWART_PART_DATA}M\n"), "disk", WKS, RAUC),
    ("slot on a partition that is not there", change(RAUC, "by-partlabel/root-b", "by-partlabel/root-c"), "disk", RAUC, "root-c"),
    ("size unlike image/parameters", change("image/parameters", "PART_ROOT=64", "PART_ROOT=96"), "disk", "ladewart-disk.inc", "image/parameters"),
    ("another licence checksum", change(RECIPE, "md5=", "md5=0"), "licences", RECIPE, "LIC_FILES_CHKSUM"),
    ("licence in SPDX's form", change(RECIPE, "MIT | Apache-2.0", "MIT OR Apache-2.0"), "licences", RECIPE, "write | for OR"),
    ("recipe named like an override", change(DISTRO, 'DISTROOVERRIDES = "distro-ladewart"', 'DISTROOVERRIDES = "ladewart"'), "machines", RECIPE, "override"),
    ("variable that nobody knows", add(IMAGE, '\nIMAGE_INSTAL = "bash"\n'), "variables", IMAGE, "nobody knows"),
    ("account with another number", change(RECIPE, "--uid 901", "--uid 911"), "accounts", RECIPE, "sysusers.d"),
    ("daemon less confined", change("image/files/usr/lib/systemd/system/ladewartd.service", "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n", ""), "units", "ladewartd.service", "systemd-analyze"),
    ("tests built over the programs", change(RECIPE, "--target-dir ${B}/tests ", ""), "programs", RECIPE, "dev-dependencies"),
    ("kas file with a mistake", change("yocto/kas/qemuarm64.yml", "machine:", "machina:"), "kas", "yocto/kas/qemuarm64.yml", "machina"),
    ("repository without a pin", change("yocto/kas/qemuarm64.lock.yml", "    meta-rauc:\n", "    meta-rock:\n"), "kas", "qemuarm64.lock.yml", "kas lock"),
]


def copy(tree, folder):
    """The part of the tree that the checks look at."""
    for part in ("yocto", "image"):
        shutil.copytree(tree / part, folder / part, symlinks=True)
    for part in ("Cargo.toml", "Cargo.lock", "LICENSE"):
        shutil.copy(tree / part, folder / part)


def run(tree, rows):
    """Puts each fault into a copy; prints a table; the number of faults that were not caught."""
    missed = 0
    print(f"\n   {'seeded fault':40} {'check':10} result")
    for what, apply, which, file, words in FAULTS:
        with tempfile.TemporaryDirectory(prefix="ladewart-yocto-") as place:
            folder = pathlib.Path(place).resolve()
            copy(tree, folder)
            # One file is enough where each is looked at for itself.
            narrow = {"only": file} if which == "parse" else {}
            known = {str(finding) for finding in CHECKS[which](folder, **narrow)[1]}
            apply(folder)
            found = [finding for finding in CHECKS[which](folder, **narrow)[1] if str(finding) not in known]
        caught = any(file in finding.file and re.search(re.escape(words), str(finding)) for finding in found)
        missed += not caught
        said = str(found[0])[:110] if found else "nothing was found"
        print(f"   {what:40} {which:10} {'caught' if caught else 'MISSED'}: {said}", flush=True)
        rows.append({"fault": what, "check": which, "caught": caught})
    return missed
