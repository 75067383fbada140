"""Writes the software bill of materials (CycloneDX 1.6, JSON) from the unpacked packages and Cargo.lock.

sbom.py --name NAME --version VERSION --time EPOCH --lock Cargo.lock --debs LIST...
"""

import argparse
import datetime
import hashlib
import json
import subprocess
import tomllib
import uuid


def debian(path):
    fields = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Package}\\n${Version}\\n${Architecture}\\n${source:Package}\\n${source:Version}\\n", path],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()
    name, version, arch, source, source_version = fields
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    purl = f"pkg:deb/debian/{name}@{version}?arch={arch}"
    return {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "properties": [{"name": "debian:source", "value": f"{source} {source_version}"}],
    }


def crates(lock):
    with open(lock, "rb") as file:
        packages = tomllib.load(file)["package"]
    for package in packages:
        purl = f"pkg:cargo/{package['name']}@{package['version']}"
        component = {"type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl}
        if "checksum" in package:
            component["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        yield component


def main():
    parser = argparse.ArgumentParser()
    for name in ("name", "version", "lock"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--time", type=int, required=True)
    parser.add_argument("--debs", nargs="+", required=True)
    given = parser.parse_args()
    paths = set()
    for entry in given.debs:
        with open(entry, encoding="utf-8") as file:
            paths.update(file.read().split())
    components = [debian(path) for path in sorted(paths)] + list(crates(given.lock))
    unique = {component["bom-ref"]: component for component in components}
    print(json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, given.name + given.version)}",
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(given.time, datetime.timezone.utc).isoformat(),
            "component": {"type": "operating-system", "name": given.name, "version": given.version},
        },
        "components": list(unique.values()),
    }, indent=1))


main()
