"""The layers' files through BitBake's own parser, from the PyPI package: values, and what does not parse.

oe-core is in no package index. Its classes and includes are empty here; which of them there are is a list, so that a
name that nobody has is found. Each file is parsed by a process of its own: some faults end BitBake by design.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types

# Classes of oe-core (wrynose) and of meta-rauc that the layers may inherit; a new one is added here by hand.
CLASSES = """allarch bundle cargo cargo-update-recipe-crates core-image deploy features_check nopackages packagegroup
ptest-cargo systemd useradd""".split()

# Files of other layers that the layers may require.
INCLUDES = """conf/machine/beagleplay-k3r5.conf conf/machine/beagleplay.conf
conf/machine/phyboard-segin-imx93-2.conf conf/machine/qemuarm64.conf conf/machine/raspberrypi4-64.conf""".split()

LAYERS = ("yocto/meta-ladewart", "yocto/meta-ladewart-distro", "yocto/meta-ladewart-bsp")

# What a recipe finds set, as far as ours look at it while they are parsed.
SETTINGS = {
    "BBINCLUDED": "", "COREBASE": "/oe-core", "COMMON_LICENSE_DIR": "/oe-core/meta/files/common-licenses",
    "DISTRO": "ladewart", "LADEWART_BOARD": "qemu-arm64", "MACHINE": "ladewart-qemuarm64",
    "OVERRIDES": "ladewart-qemuarm64:distro-ladewart", "RAUC_CERT_FILE": "cert.pem", "RAUC_KEY_FILE": "key.pem",
    "BB_ENV_PASSTHROUGH": "", "BP": "${BPN}-${PV}", "BPN": "${PN}", "PATH": os.environ["PATH"],
    "UNPACKDIR": "/unpack", "S": "${UNPACKDIR}/${BP}", "D": "/image", "WORKDIR": "/work",
    "bindir": "/usr/bin", "sbindir": "/usr/sbin", "sysconfdir": "/etc", "libexecdir": "/usr/libexec",
    "nonarch_libdir": "/usr/lib", "localstatedir": "/var", "THISDIR": "${@os.path.dirname(d.getVar('FILE'))}",
    "PN": "${@bb.parse.vars_from_file(d.getVar('FILE'), d)[0] or 'defaultpkgname'}",
    "PV": "${@bb.parse.vars_from_file(d.getVar('FILE'), d)[1] or '1.0'}",
}


def library():
    """Imports bb; the PyPI package leaves the hash server out, which parsing does not need."""
    for name in ("hashserv", "hashserv.client"):
        sys.modules.setdefault(name, types.ModuleType(name))
    import bb
    import bb.codeparser
    import bb.data
    import bb.fetch2
    import bb.parse
    import bb.parse.ast
    import bb.siggen

    return bb


def parse(tree, file, stubs):
    """The variables of one file, flags and functions checked; raises whatever BitBake raises."""
    bb = library()
    bb.utils.approved_variables = lambda: []
    data = bb.data.init()
    for name, value in SETTINGS.items():
        data.setVar(name, value)
    layers = [str(tree / layer) for layer in LAYERS]
    layers.append(str(tree / "yocto/meta-ladewart-bsp/dynamic-layers"))
    data.setVar("BBPATH", ":".join([*layers, str(stubs)]))
    data.setVar("LAYERDIR", next((layer for layer in layers[:3] if str(file).startswith(layer + "/")), layers[0]))
    data.setVar("TOPDIR", str(stubs))
    data.setVar("FILE", str(file))
    bb.parse.siggen = bb.siggen.init(data)
    if file.suffix in (".bbclass", ".inc") and "conf" not in file.parts:
        # Parsed by what inherits or requires it as well; here for itself.
        holder = stubs / "holder_1.0.bb"
        verb = f"inherit {file.stem}" if file.suffix == ".bbclass" else f"require {file}"
        holder.write_text(verb + "\n", encoding="utf-8")
        file = holder
    if file.suffix == ".bbappend":
        # Takes the place of the recipe that it appends to.
        holder = stubs / f"{file.stem.replace('%', '1.0')}.bb"
        holder.write_text(f"require {file}\n", encoding="utf-8")
        target = stubs / f"{file.stem.replace('%', '1.0')}.inc"
        target.write_text(file.read_text(encoding="utf-8").replace("${THISDIR}", str(file.parent)), encoding="utf-8")
        holder.write_text(f"require {target}\n", encoding="utf-8")
        file = holder
    data.setVar("__bbclasstype", "recipe")
    if file.suffix == ".conf":
        data = bb.parse.handle(str(file), data, 1)
    else:
        data = bb.parse.handle(str(file), data, 0)[""]
    if data.getVar("__SKIPPED", False):
        raise ValueError("the recipe skips itself")
    code(bb, data)
    return data


def code(bb, data):
    """Every function: Python compiles, shell parses."""
    for name in list(data.keys()):
        # Anonymous functions have been run already; BitBake's own shell helpers are not ours.
        if not data.getVarFlag(name, "func", False) or name == "__anonymous":
            continue
        if data.getVarFlag(name, "python", False):
            body = data.getVar(name, False) or ""
            whole = body if body.lstrip().startswith("def ") else f"def f(d):\n{body or '    pass'}"
            compile(whole, name, "exec")
        else:
            done = subprocess.run(["sh", "-n"], input=data.getVar(name) or "", capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(f"shell function {name}: {done.stderr.strip()}")


def stubbed(folder):
    """A layer of empty classes and includes."""
    classes = folder / "classes-recipe"
    classes.mkdir(parents=True)
    for name in CLASSES:
        (classes / f"{name}.bbclass").write_text("", encoding="utf-8")
    for name in INCLUDES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    return folder


def values(tree, file, names):
    """Variables of a file, in a process of its own; `{"error": TEXT}` if it does not parse."""
    done = subprocess.run(
        [sys.executable, "-B", __file__, str(tree), str(file), *names], capture_output=True, text=True, check=False, timeout=120
    )
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        return json.loads(last[0])
    except json.JSONDecodeError:
        text = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return {"error": " ".join(text[-3:]) or f"the parser ended with {done.returncode}"}


def main():
    tree, file, *names = sys.argv[1:]
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
        import logging

        logging.basicConfig(stream=said, level=logging.ERROR)
        try:
            data = parse(pathlib.Path(tree), pathlib.Path(file), stubbed(pathlib.Path(folder)))
            answer = {}
            for name in names:
                base, _, flag = name.partition("[")
                answer[name] = data.getVarFlag(base, flag.rstrip("]"), True) if flag else data.getVar(base)
        except BaseException as error:  # BitBake ends the process for some faults; here every end is a finding.
            text = " ".join((str(error) or type(error).__name__).split())
            heard = " ".join(said.getvalue().split())
            answer = {"error": f"{text} {heard}".strip()[:600]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
