"""What surrounds the recipes: crates, Rust version, kas, bitbake-setup, layer.conf, READMEs, target tests."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

import metadata
from findings import LAYERS, Finding, check, machines_of, metadata_files, name

# The Rust of wrynose.
RUST = (1, 94, 1)
IN_LAYER_CONF = re.compile(
    r"(BBPATH|BBFILES|BBFILES_DYNAMIC|BBFILE_COLLECTIONS|BBFILE_PATTERN_\S+|BBFILE_PRIORITY_\S+|LAYERVERSION_\S+|LAYERDEPENDS_\S+"
    r"|LAYERRECOMMENDS_\S+|LAYERSERIES_COMPAT_\S+)$"
)  # fmt: skip
README_NEEDS = {
    "dependencies": r"^## Dependencies", "how to add the layer": r"^## Adding", "what was verified": r"^## Verif", "patches": r"patch",
    "a maintainer": r"maintainer", "an e-mail address": r"\S+@\S+\.\S+", "security": r"SECURITY\.md", "licence": r"^## Licence",
}  # fmt: skip


@check
def crates(tree):
    """The recipe's crates list is Cargo.lock: names, versions, checksums."""
    done = subprocess.run([sys.executable, "-B", tree / "yocto/update-crates", "--check", "--tree", tree], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    count = int((re.search(r"(\d+) crates", said) or [0, 0])[1])
    if done.returncode == 0:
        return count, []
    file, _, what = said.partition(": ")
    what, _, mend = what.rpartition("; ")
    return count, [Finding(file, what, mend)]


@check
def rust(tree):
    """No crate asks for a newer Rust than wrynose's 1.94.1 (its manifests say so)."""
    if not (tree / "daemon/src").exists():
        return 0, []
    done = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "aarch64-unknown-linux-gnu"], cwd=tree, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return 0, [Finding("Cargo.lock", f"cargo metadata: {done.stderr.strip().splitlines()[-1]}", "run cargo metadata --locked")]
    found, packages = [], json.loads(done.stdout)["packages"]
    for package in packages:
        wanted = package.get("rust_version")
        if wanted and tuple(int(part) for part in (wanted.split("-")[0] + ".0.0").split(".")[:3]) > RUST:
            found.append(Finding("Cargo.lock", f"{package['name']} {package['version']} asks for Rust {wanted}, wrynose has {'.'.join(map(str, RUST))}", f"take an older one: cargo update -p {package['name']} --precise VERSION"))
    return len(packages), found


@check
def programs(tree):
    """What only tests ask of a crate is not in the programs: a recipe with ptest-cargo builds its tests in a place of their own."""
    found, count = [], 0
    for path in metadata_files(tree):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"^inherit .*\bptest-cargo\b", text, re.MULTILINE):
            continue
        count += 1
        if not re.search(r'^CARGO_BUILD_FLAGS:append:task-compile-ptest-cargo = " .*--target-dir ', text, re.MULTILINE):
            what = "builds its tests over its programs, which get the features of dev-dependencies"
            found.append(Finding(name(tree, path), what, 'write CARGO_BUILD_FLAGS:append:task-compile-ptest-cargo = " --target-dir ${B}/tests"'))
    return count, found


@check
def kas(tree):
    """kas files keep kas's schema, find what they include, and every remote repository is pinned; so is bitbake-setup's."""
    import kas as library

    schema = json.loads((pathlib.Path(library.__file__).parent / "schema-kas.json").read_text(encoding="utf-8"))
    found, folder = [], tree / "yocto/kas"
    loaded = {}
    for path in sorted(folder.glob("*.yml")):
        try:
            loaded[path.name] = yaml.safe_load(path.read_text(encoding="utf-8"))
            jsonschema.validate(loaded[path.name], schema)
        except (yaml.YAMLError, jsonschema.ValidationError) as error:
            found.append(Finding(name(tree, path), f"kas does not take it: {' '.join(str(getattr(error, 'message', error)).split())}", "mend it, then tests/yocto/run kas"))

    def repositories(entry):
        whole = dict(loaded.get(entry, {}).get("repos") or {})
        for included in loaded.get(entry, {}).get("header", {}).get("includes", []):
            other = pathlib.Path(included).name
            if not (tree / included).exists():
                found.append(Finding(f"yocto/kas/{entry}", f"includes {included}, which is not there", "name a file from the tree's root"))
            whole |= repositories(other)
        return whole

    machines = {entry: content["machine"] for entry, content in loaded.items() if content and "machine" in content}
    for entry in sorted(machines):
        lock = entry.replace(".yml", ".lock.yml")
        pinned = set((loaded.get(lock) or {}).get("overrides", {}).get("repos", {}))
        remote = {repository for repository, content in repositories(entry).items() if (content or {}).get("url")}
        for repository in sorted(remote ^ pinned):
            what = f"does not pin {repository}" if repository in remote else f"pins {repository}, which {entry} has not"
            found.append(Finding(f"yocto/kas/{lock}", what, f"run kas lock yocto/kas/{entry}"))
    there = {path.stem for path in machines_of(tree)}
    for machine in sorted(there ^ set(machines.values())):
        found.append(Finding("yocto/kas", f"{machine} has a kas file without a machine, or a machine without a kas file", "add the other, or take it away"))
    setup = tree / "yocto/ladewart-wrynose.conf.json"
    for configuration in json.loads(setup.read_text(encoding="utf-8"))["bitbake-setup"]["configurations"]:
        for layer in configuration["bb-layers-file-relative"]:
            if not (setup.parent / layer / "conf/layer.conf").exists():
                found.append(Finding(name(tree, setup), f"names the layer {layer}, which is not there", "name one of the layers"))
    return len(loaded) + 1, found


@check
def layers(tree):
    """layer.conf sets nothing that would change other layers; READMEs say what a layer's user and yocto-check-layer look for."""
    found = []
    for layer in LAYERS:
        conf = tree / layer / "conf/layer.conf"
        text = conf.read_text(encoding="utf-8")
        for variable in re.findall(r"^([A-Za-z_\-]+)\s*(?:\?|:|\+|\.)?=", text, re.MULTILINE):
            if not IN_LAYER_CONF.match(variable):
                found.append(Finding(name(tree, conf), f"sets {variable}, which would change other layers", "set it in a distro or machine configuration"))
        if not re.search(r'^LAYERSERIES_COMPAT_\S+ = "wrynose"$', text, re.MULTILINE):
            found.append(Finding(name(tree, conf), "is not for wrynose alone", 'write LAYERSERIES_COMPAT_… = "wrynose"'))
        for dynamic in re.findall(r"^    (\S+?):\$\{LAYERDIR\}", text, re.MULTILINE):
            if dynamic not in re.search(r'^LAYERRECOMMENDS_\S+ = "(.*)"', text, re.MULTILINE)[1].split():
                found.append(Finding(name(tree, conf), f"BBFILES_DYNAMIC knows {dynamic}, LAYERRECOMMENDS does not", "keep the two in step, for the layer index"))
        readme = tree / layer / "README.md"
        written = readme.read_text(encoding="utf-8") if readme.exists() else ""
        for what, pattern in README_NEEDS.items():
            if not re.search(pattern, written, re.MULTILINE | re.IGNORECASE):
                found.append(Finding(name(tree, readme), f"lacks {what}", "write it: yocto-check-layer or a reader looks for it"))
        for patch in (tree / layer).rglob("*.patch"):
            if "Upstream-Status:" not in patch.read_text(encoding="utf-8"):
                found.append(Finding(name(tree, patch), "has no Upstream-Status", "say what became of it upstream"))
    for path in (tree / "yocto").rglob("*"):
        if path.is_file() and re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY", path.read_bytes()):
            found.append(Finding(name(tree, path), "is a private key", "take it out, and make a new one"))
    return len(LAYERS), found


@check
def target_tests(tree):
    """OEQA cases compile, and the suites that an image runs are there."""
    found = []
    cases = tree / "yocto/meta-ladewart/lib/oeqa/runtime/cases"
    for path in sorted(cases.glob("*.py")):
        try:
            content = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            found.append(Finding(name(tree, path), f"line {error.lineno}: {error.msg}", "mend it"))
            continue
        methods = [node.name for node in ast.walk(content) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        if not methods:
            found.append(Finding(name(tree, path), "has no test", "add one, or take the file away"))
        for module, case in re.findall(r'"(ladewart_\w+)\.\w+\.(test_\w+)"', path.read_text(encoding="utf-8")):
            if not (cases / f"{module}.py").exists() or f"def {case}(" not in (cases / f"{module}.py").read_text(encoding="utf-8"):
                found.append(Finding(name(tree, path), f"waits for {module}.{case}, which is not there", "name a test that is there"))
    image = tree / "yocto/meta-ladewart-distro/recipes-core/images/ladewart-image-development.bb"
    for suite in (metadata.values(tree, image, ("TEST_SUITES",)).get("TEST_SUITES") or "").split():
        if suite.startswith("ladewart") and not (cases / f"{suite}.py").exists():
            found.append(Finding(name(tree, image), f"TEST_SUITES has {suite}, which is not there", "name a case of meta-ladewart"))
    return len(list(cases.glob("*.py"))), found
