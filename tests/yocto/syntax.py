"""Do the files follow the rules (oelint-adv), does BitBake parse them, does it know the variables?"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import metadata
from findings import Finding, assigned, check, metadata_files, name

# Rules of oelint-adv that do not fit, each with its reason.
SUPPRESSED = {
    "oelint.var.mandatoryvar.HOMEPAGE": "the project has no public address yet",
    "oelint.vars.fileextrapaths": "the layers lie in the tree whose files they install",
    "oelint.vars.outofcontext": "the same",
    "oelint.var.filesoverride": "small packages say all that they hold",
    "oelint.task.noanonpython": "the bundle asks for its keys before anything is built",
    "oelint.var.licenseremotefile": "the licence of the tree, or a common one of oe-core",
}
# The crates list has the form that oe-core's own generator writes.
CRATES = "oelint.vars.inconspaces"

# Variables beyond oelint's data: image variables of wic's class, QEMU's, and those of the board layers.
KNOWN = """ACCEPT_FSL_EULA BBFILES_DYNAMIC DISABLE_VC4GRAPHICS DISTRO_CODENAME ENABLE_UART IMAGE_ID IMAGE_TYPEDEP IMAGE_VERSION
IMX_DEFAULT_BSP IMX_M33_DEMO_INSTALL
OS_RELEASE_FIELDS RPI_USE_U_BOOT SDK_VENDOR SDK_VERSION KERNEL_CONFIG_FRAGMENTS hostname""".split()


@check
def lint(tree):
    """oelint-adv for wrynose: no error, no warning."""
    # layer.conf is not a recipe; oelint has no rules for it.
    files = [str(path) for path in metadata_files(tree) if path.name != "layer.conf"]
    with tempfile.TemporaryDirectory() as folder:
        mods = pathlib.Path(folder) / "known.json"
        own = sorted({variable for path in metadata_files(tree) for variable in used(path)})
        overrides = {"distros": ["distro-ladewart"], "machines": [path.stem for path in files_of_machines(tree)]}
        mods.write_text(json.dumps({"variables": {"known": own + KNOWN}, "replacements": overrides}), encoding="utf-8")
        command = [
            str(pathlib.Path(sys.executable).parent / "oelint-adv"), "--release", "wrynose", "--quiet", "--hide", "info", "--exit-zero",
            "--jobs", "2", "--constantmods", f"+{mods}", "--messageformat", "{path}|{line}|{severity}|{id}|{msg}",
        ]
        for rule in SUPPRESSED:
            command += ["--suppress", rule]
        done = subprocess.run(command + files, capture_output=True, text=True, check=False, timeout=300)
    found = []
    for line in (done.stdout + done.stderr).splitlines():
        parts = line.split("|", 4)
        if len(parts) != 5:
            found.append(Finding("yocto", f"oelint-adv: {line}", "see tests/yocto/syntax.py"))
            continue
        path, number, severity, rule, text = parts
        if rule == CRATES and path.endswith("-crates.inc"):
            continue
        found.append(Finding(f"{name(tree, path)}:{number}", f"{severity} {rule}: {text.split(' [branch')[0]}", "mend it, or add the rule with a reason to tests/yocto/syntax.py"))
    return len(files), found


def files_of_machines(tree):
    return sorted((tree / "yocto/meta-ladewart-bsp").rglob("conf/machine/*.conf"))


def used(path):
    """Our own and RAUC's variables in a file."""
    return set(re.findall(r"\b(?:LADEWART|RAUC)_[A-Za-z0-9_]+|\bdo_image_ladewart\w+", path.read_text(encoding="utf-8")))


@check
def parse(tree, only=None):
    """BitBake's parser accepts every file; Python compiles, shell parses."""
    files = [path for path in metadata_files(tree) if only is None or name(tree, path) == only]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda path: metadata.values(tree, path, ()), files)
    found = [
        Finding(name(tree, path), f"does not parse: {answer['error']}", "mend it, then tests/yocto/run parse")
        for path, answer in zip(files, answers, strict=True)
        if "error" in answer
    ]
    return len(files), found


@check
def variables(tree):
    """Every variable that is set is one that oe-core, RAUC or these layers know."""
    import oelint_data

    folder = pathlib.Path(oelint_data.__file__).parent / "wrynose"
    known = set(KNOWN)
    for data in folder.glob("*.json"):
        content = json.loads(data.read_text(encoding="utf-8"))
        known |= set(content.get("variables", {}).get("known", [])) | set(content.get("functions", {}).get("known", []))
    documented, found, count = set(), [], 0
    for path in metadata_files(tree):
        documented |= set(re.findall(r"^(LADEWART_\w+)\[doc\]", path.read_text(encoding="utf-8"), re.MULTILINE))
    for path in metadata_files(tree):
        if path.name.endswith("-crates.inc"):
            continue
        for variable in assigned(path):
            base = re.sub(r":.*", "", variable)
            count += 1
            if base.startswith("LADEWART_"):
                if base not in documented:
                    found.append(Finding(name(tree, path), f"{base} is nowhere documented", f'say what it is: {base}[doc] = "..."'))
            elif base not in known and not re.match(r"(BBFILE_PATTERN|BBFILE_PRIORITY|LAYER\w+)_|PREFERRED_\w*PROVIDER_|VIRTUAL-RUNTIME_|QB_|RAUC_|CARGO_PROFILE_", base):
                found.append(Finding(name(tree, path), f"{base} is a variable that nobody knows", "mend the name, or add it to KNOWN in tests/yocto/syntax.py"))
    return count, found
