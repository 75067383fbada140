"""The layers with real BitBake and real oe-core, from clones: what is there, does it parse, which recipes would be built.

Rungs L1 and L1b of yocto/README.md. Nothing is fetched or built. BitBake does not run as root.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
OURS = [TREE / "yocto" / layer for layer in ("meta-ladewart", "meta-ladewart-distro", "meta-ladewart-bsp")]
STEPS = ("layers", "parse", "graph", "probe", "check-layer", "dry-run")
USUAL = ("layers", "parse", "graph", "probe")
# Recipes of meta-openembedded that the appliance needs; the other 2000 would be parsed for nothing (--whole does it).
NEEDED = "cryptsetup|jansson|libaio|libgpiod|libmnl|libnftnl|lvm2|nftables"
# What boards' layers append to recipes of meta-openembedded goes with them; not what they append to their own.
KEPT = "u-boot-ti|ti-core-initramfs"
FOLLOWS = re.compile(r'^SRCREV\S* = "\$\{AUTOREV\}"', re.MULTILINE)
TARGETS = ("ladewart-image", "ladewart-image-development", "ladewart-bundle")
# Target recipes of ladewart-image on QEMU, as stored: what comes in or goes is then on purpose.
STORED = TREE / "tests/yocto/buildlist.txt"
MACHINES = {
    "ladewart-qemuarm64": None,
    "ladewart-segin-imx93": "meta-phytec",
    "ladewart-beagleplay": "meta-beagle",
    "ladewart-raspberrypi4": "meta-raspberrypi",
}
# Variables of a recipe (or of the configuration) and what they must be.
PROBES = (
    ("ladewart", "PV", r"0\.1\.0"),
    ("ladewart", "SYSTEMD_SERVICE:ladewart", r"ladewartd\.service ladewart-failsafe\.service"),
    ("ladewart-image", "WKS_FULL_PATH", r"ladewart-ab\.wks"),
    ("ladewart-image", "IMAGE_FSTYPES", r"ladewartroot ladewartboot ladewartenv"),
    ("ladewart-image", "IMAGE_FEATURES", r"^read-only-rootfs$"),
    ("ladewart-image", "WKS_FILE_DEPENDS", r"^(?!.*(grub|systemd-boot))"),
    ("ladewart-bundle", "RAUC_BUNDLE_COMPATIBLE", r"^ladewart-qemu-arm64$"),
    ("ladewart-bundle", "RAUC_BUNDLE_FORMAT", r"^verity$"),
    (None, "IMAGE_BOOT_FILES", r"^boot\.scr"),
    ("linux-yocto", "KMACHINE", r"^qemuarm64$"),
    (None, "DISTRO_FEATURES", r"(?=.*\brauc\b)(?=.*\bsystemd\b)(?!.*\b(x11|wifi|alsa)\b)"),
)
# What a board's own layer must not have the last word on.
PROBES_OF_BOARDS = (
    (None, "WKS_FILES", r"^ladewart-ab\.wks\.in$"),
    (None, "IMAGE_BOOT_FILES", r"^boot\.scr"),
    ("ladewart-image", "IMAGE_FSTYPES", r"^ladewartroot ladewartboot ladewartenv wic\.zst wic\.bmap$"),
    ("ladewart-image", "IMAGE_INSTALL", r"^(?!.*fitimage)"),
    ("ladewart-image", "WKS_FULL_PATH", r"ladewart-ab\.wks"),
)


class Build:
    """One build directory with the given clones."""

    def __init__(self, folder, bitbake, core, layers, whole, narrow):
        self.folder, self.bitbake, self.core, self.narrow = folder, bitbake, core, narrow
        self.layers = [core / "meta", *layers, *OURS]
        self.rows = []
        (folder / "conf").mkdir(parents=True, exist_ok=True)
        for name in ("key.pem", "cert.pem"):
            (folder / name).touch()
        lines = ['LCONF_VERSION = "7"', 'BBPATH = "${TOPDIR}"', 'BBFILES ?= ""', f'BBLAYERS = "{" ".join(map(str, self.layers))}"']
        (folder / "conf/bblayers.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        lines = [
            'MACHINE ??= "ladewart-qemuarm64"', 'DISTRO ??= "ladewart"', 'CONNECTIVITY_CHECK_URIS = ""',
            'INHERIT_DISTRO:remove = "uninative"', 'ACCEPT_FSL_EULA = "1"', 'BB_SERVER_TIMEOUT = "0"',
            f'RAUC_KEY_FILE ?= "{folder}/key.pem"', f'RAUC_CERT_FILE ?= "{folder}/cert.pem"', f'RAUC_KEYRING_FILE ?= "{folder}/cert.pem"',
        ]  # fmt: skip
        # They follow their branches, which asks the network while they are parsed.
        lines.append('BBMASK += "/linux-yocto-dev"')
        lines += [f'BBMASK += "{path}"' for layer in layers for path in sorted(layer.rglob("*.bb")) if FOLLOWS.search(path.read_text(encoding="utf-8"))]
        if not whole:
            lines.append(f'BBMASK += "/meta-openembedded/meta-(?:oe|python|networking)/(?!.*(?:{NEEDED}))"')
            lines.append(f'BBMASK += "/dynamic-layers/(?:openembedded-layer|networking-layer|meta-python)/(?!.*(?:{KEPT}))"')
        (folder / "conf/local.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, step, what, *command, folder=None, **variables):
        """One command in the build's environment; a row of the table."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"LC_ALL": "en_US.UTF-8", "BITBAKEDIR": str(self.bitbake), **variables}
        if variables:
            environment["BB_ENV_PASSTHROUGH_ADDITIONS"] = " ".join(variables)
        line = f"cd {shlex.quote(str(self.core))} && . ./oe-init-build-env {shlex.quote(str(folder or self.folder))} >/dev/null && exec {shlex.join(command)}"
        began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        log = self.folder / f"{step}-{what.replace(' ', '-')}.log"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(["bash", "-c", line], env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = log.read_text(encoding="utf-8")
        return code, text, {
            "step": step, "what": what, "seconds": round(time.monotonic() - began), "log": str(log),
            "cpu": round(now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime),
        }  # fmt: skip

    def tell(self, row, ok, words):
        row |= {"ok": ok, "result": words}
        self.rows.append(row)
        print(f"   {row['step']:12} {row['what']:48} {row['seconds']:6} s  {'ok' if ok else 'FAILED'}: {words}", flush=True)
        if not ok:
            print(f"      see {row['log']}", flush=True)


def errors(text):
    # A layer of which nothing is needed is masked whole.
    known = re.compile(r"Parsing halted|No bb files in \S+ matched BBFILE_PATTERN")
    return [line for line in text.splitlines() if line.startswith(("ERROR:", "WARNING:")) and not known.search(line)]


def layers(build, _machines):
    code, text, row = build.run("layers", "show-layers", "bitbake-layers", "show-layers")
    found = re.findall(r"^(\S+)\s+/\S+\s+\d+$", text, re.MULTILINE)
    build.tell(row, code == 0 and len(found) == len(build.layers), f"{len(found)} layers")


def parse(build, machines):
    for machine in machines:
        code, text, row = build.run("parse", machine, "bitbake", "-p", MACHINE=machine)
        found = re.search(r"Parsing of (\d+) \.bb files complete \((\d+) cached, (\d+) parsed\)\. (\d+) targets, (\d+) skipped, (\d+) masked, (\d+) errors", text)
        said = errors(text)
        build.tell(row, code == 0 and not said, said[0][:160] if said else found[0] if found else "from the cache, no error")


def graph(build, machines):
    for machine in machines:
        for target in TARGETS:
            code, text, row = build.run("graph", f"{machine} {target}", "bitbake", "-g", target, MACHINE=machine)
            said = errors(text)
            if code or said:
                build.tell(row, False, said[0][:160] if said else f"exit code {code}")
                continue
            listed = (build.folder / "pn-buildlist").read_text(encoding="utf-8").split()
            for_target = sorted(name for name in listed if not re.search(r"-native$|-cross|-crosssdk|^nativesdk-", name))
            parsed = re.search(r"Parsing of (\d+) \.bb files complete \(\d+ cached, [1-9]\d* parsed\)", text)
            words = f"{len(listed)} recipes, {len(for_target)} of them for the target{', parsed before: ' + parsed[1] if parsed else ''}"
            row["recipes"] = for_target
            wanted = STORED.read_text(encoding="utf-8").split() if STORED.exists() else []
            if (machine, target) == ("ladewart-qemuarm64", "ladewart-image") and for_target != wanted:
                (build.folder / "buildlist.txt").write_text("\n".join(for_target) + "\n", encoding="utf-8")
                new, gone = sorted(set(for_target) - set(wanted)), sorted(set(wanted) - set(for_target))
                words += f"; not as stored: new {' '.join(new) or 'none'}, gone {' '.join(gone) or 'none'}: if it is meant, copy {build.folder}/buildlist.txt to {STORED.relative_to(TREE)}"
                build.tell(row, False, words)
                continue
            build.tell(row, True, words)


def probe(build, machines):
    for machine in machines:
        for recipe, variable, wanted in PROBES if MACHINES.get(machine) is None else PROBES_OF_BOARDS:
            command = ["bitbake-getvar", "--value", *(["-r", recipe] if recipe else []), variable]
            code, text, row = build.run("probe", f"{machine} {recipe or 'configuration'} {variable}", *command, MACHINE=machine)
            value = " ".join(line for line in text.splitlines() if not line.startswith(("NOTE:", "WARNING:"))).strip()
            value = " ".join(value.split())
            build.tell(row, code == 0 and bool(re.search(wanted, value)), value[-100:])


# With --narrow, yocto-check-layer sees our recipes and those that our appends touch; all else counts as provided. Its
# tests are the same, its world is small.
TOUCHED = "base-files|/rauc/|linux-yocto_6|os-release|u-boot_2026|meta-rauc/recipes-core/busybox|busybox_1|packagegroup-base"
NARROW = f"""BBMASK += "^(?!.*(?:{TOUCHED}|/yocto/meta-ladewart|/narrow/)).*/recipes"
ASSUME_PROVIDED += "^(?!(?:ladewart|packagegroup-ladewart|base-files|linux-yocto|rauc|os-release|busybox|u-boot$|fakeroot|virtual/fakeroot|pseudo|virtual/kernel|core-image)).*$"
PREFERRED_PROVIDER_virtual/fakeroot-native = "fakeroot-native"
USERADDSETSCENEDEPS:forcevariable = ""
"""
# BitBake looks for this provider even if it is assumed to be there.
FAKEROOT = 'SUMMARY = "Stands for pseudo"\nLICENSE = "MIT"\nPROVIDES = "virtual/fakeroot-native pseudo-native"\nINHIBIT_DEFAULT_DEPS = "1"\ninherit native\n'
FAKEROOT_LAYER = """BBFILES += "${LAYERDIR}/recipes/*/*.bb"
BBFILE_COLLECTIONS += "narrow"
BBFILE_PATTERN_narrow = "^${LAYERDIR}/"
LAYERSERIES_COMPAT_narrow = "wrynose"
"""


def check_layer(build, _machines):
    others = [str(layer) for layer in build.layers[:-1]]
    for layer in OURS:
        folder = build.folder.parent / f"{build.folder.name}-check-layer"
        shutil.rmtree(folder, ignore_errors=True)
        narrow = folder / "narrow"
        (folder / "conf").mkdir(parents=True)
        layers = [str(build.core / "meta")]
        settings = [
            'MACHINE ??= "qemuarm64"', 'CONNECTIVITY_CHECK_URIS = ""', 'INHERIT_DISTRO:remove = "uninative"',
            f'RAUC_KEY_FILE ?= "{build.folder}/key.pem"', f'RAUC_CERT_FILE ?= "{build.folder}/cert.pem"', f'RAUC_KEYRING_FILE ?= "{build.folder}/cert.pem"',
        ]  # fmt: skip
        if build.narrow:
            for file, text in (("conf/layer.conf", FAKEROOT_LAYER), ("recipes/fakeroot/fakeroot-native_1.0.bb", FAKEROOT)):
                (narrow / file).parent.mkdir(parents=True, exist_ok=True)
                (narrow / file).write_text(text, encoding="utf-8")
            layers.append(str(narrow))
            settings.append(NARROW)
        (folder / "conf/bblayers.conf").write_text(f'LCONF_VERSION = "7"\nBBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{" ".join(layers)}"\n', encoding="utf-8")
        (folder / "conf/local.conf").write_text("\n".join(settings) + "\n", encoding="utf-8")
        machine = ["--machines", "ladewart-qemuarm64"] if layer.name.endswith("-bsp") else []
        dependencies = [path for path in others if path != str(layer)]
        what = layer.name + (" (narrow)" if build.narrow else "")
        code, text, row = build.run("check-layer", what, "yocto-check-layer", *machine, "--dependency", *dependencies, "--", str(layer), folder=folder)
        verdict = re.findall(r"INFO: (\S+) \.\.\. (PASS|FAIL)", text)
        words = ", ".join(" ".join(one) for one in verdict) or f"exit code {code}"
        build.tell(row, code == 0 and bool(verdict), words)


def dry_run(build, machines):
    for target in TARGETS:
        code, text, row = build.run("dry-run", f"{machines[0]} {target}", "bitbake", "-n", target, MACHINE=machines[0])
        found = re.search(r"Tasks Summary: .*", text)
        build.tell(row, code == 0, found[0] if found else f"exit code {code}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="tests/yocto/run --with")
    parser.add_argument("bitbake", type=pathlib.Path, help="clone of BitBake 2.18")
    parser.add_argument("core", type=pathlib.Path, help="clone of openembedded-core, wrynose")
    parser.add_argument("layer", type=pathlib.Path, nargs="*", help="further layers; meta-oe, meta-python, meta-networking and meta-rauc are needed")
    parser.add_argument("--step", action="append", choices=STEPS, help=f"may be repeated; default: {', '.join(USUAL)}")
    parser.add_argument("--machine", action="append", help="default: each whose BSP layer is given")
    parser.add_argument("--build", type=pathlib.Path, default=TREE / "target/yocto-build", help="build directory (default: target/yocto-build)")
    parser.add_argument("--whole", action="store_true", help="parse all of meta-openembedded, not only what the appliance needs")
    parser.add_argument("--narrow", action="store_true", help="check-layer with a world of our recipes and those that we append to")
    given = parser.parse_args()
    if os.getuid() == 0:
        sys.exit("tests/yocto/run: BitBake does not run as root; run this as another user, with --build DIRECTORY that is theirs")
    missing = [path for path in (given.bitbake / "bin/bitbake", given.core / "oe-init-build-env", *[layer / "conf/layer.conf" for layer in given.layer]) if not path.exists()]
    if missing:
        sys.exit(f"tests/yocto/run: {missing[0]} is not there")
    there = [str(layer.resolve()) for layer in given.layer]
    machines = given.machine or [machine for machine, needs in MACHINES.items() if needs is None or any(path.endswith(needs) for path in there)]
    build = Build(given.build.resolve(), given.bitbake.resolve(), given.core.resolve(), [layer.resolve() for layer in given.layer], given.whole, given.narrow)
    functions = {"layers": layers, "parse": parse, "graph": graph, "probe": probe, "check-layer": check_layer, "dry-run": dry_run}
    for step in given.step or USUAL:
        functions[step](build, machines)
    (build.folder / "report.json").write_text(json.dumps({"name": "yocto_clones", "unit": "s", "rows": build.rows, "peer": "bitbake"}) + "\n", encoding="utf-8")
    failed = [row for row in build.rows if not row["ok"]]
    print(f"   {len(build.rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
