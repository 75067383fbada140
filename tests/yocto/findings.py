"""What the checks share: where files lie, what a finding is, how checks are registered."""

import dataclasses
import pathlib
import re

LAYERS = ("yocto/meta-ladewart", "yocto/meta-ladewart-distro", "yocto/meta-ladewart-bsp")
CHECKS = {}


@dataclasses.dataclass
class Finding:
    """One thing that is wrong: the file (relative to the tree), what, and what to do."""

    file: str
    what: str
    mend: str

    def __str__(self):
        return f"{self.file}: {self.what}; {self.mend}"


def check(function):
    """Registers a check: takes the tree, returns how many things it looked at and its findings."""
    CHECKS[function.__name__] = function
    return function


def metadata_files(tree):
    """Every recipe, append, class and configuration of the layers."""
    found = []
    for layer in LAYERS:
        for path in sorted((tree / layer).rglob("*")):
            if path.suffix in (".bb", ".bbappend", ".bbclass", ".conf", ".inc"):
                found.append(path)
    return found


def machines_of(tree):
    """Machine configurations of the appliance; a loader's own (k3r5) is part of another."""
    return [path for path in sorted((tree / "yocto/meta-ladewart-bsp").rglob("conf/machine/*.conf")) if not path.stem.endswith("-k3r5")]


def parameters(tree):
    """NAME=VALUE of image/parameters."""
    text = (tree / "image/parameters").read_text(encoding="utf-8")
    return dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', text, re.MULTILINE))


def assigned(path):
    """Variables that a file sets at the beginning of a line, with their values as they stand there."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return dict(re.findall(r"""^([A-Za-z0-9_:\-${}]+)\s*(?:\?\?=|\?=|:=|\+=|\.=|=)\s*["'](.*?)["']$""", text, re.MULTILINE))


def name(tree, path):
    return str(pathlib.Path(path).relative_to(tree))
