#!/usr/bin/env python3
"""Verifies an exported journal with hashlib and openssl, from the documented byte form alone.

Usage: journal.py EXPORT.jsonl [FINGERPRINT]
Exit code 1 and a sentence that names the entry if something does not fit.
"""

import base64
import datetime
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Broken(Exception):
    """An entry does not fit."""


def milliseconds(text):
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (at - EPOCH) // datetime.timedelta(milliseconds=1)


def digest(entry):
    h = hashlib.sha256()
    h.update(b"ladewart.journal.1\0")
    h.update(bytes.fromhex(entry["previous"]))
    h.update(struct.pack(">Qq", entry["sequence"], milliseconds(entry["at"])))
    for name in ("kind", "subject", "actor", "body"):
        text = entry[name].encode()
        h.update(struct.pack(">Q", len(text)))
        h.update(text)
    return h.hexdigest()


def signature(entry, directory):
    """Checks with openssl what the entry signs; gives the key's fingerprint."""
    body = json.loads(entry["body"])
    if body["sequence"] != entry["sequence"] - 1 or body["hash"] != entry["previous"]:
        raise Broken(f"entry {entry['sequence']} signs another entry than the one before it")
    public = base64.b64decode(body["public_key"])
    files = {
        "key.der": public,
        "signature": base64.b64decode(body["signature"]),
        "message": b"ladewart.journal.signature.1\0"
        + struct.pack(">Q", body["sequence"])
        + bytes.fromhex(body["hash"]),
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    command = ["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", "key.der", "-signature", "signature", "message"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "Verified OK" not in done.stdout:
        raise Broken(f"entry {entry['sequence']}: openssl says {done.stdout}{done.stderr}")
    return hashlib.sha256(public).hexdigest()


def verify(lines):
    """Gives first and last number, the number of signatures, and the keys; raises Broken."""
    first = last = head = None
    signatures, keys = 0, []
    with tempfile.TemporaryDirectory() as directory:
        for line in lines:
            entry = json.loads(line)
            number = entry["sequence"]
            if last is None:
                first = number
            elif number != last + 1:
                raise Broken(f"entry {last + 1} is missing")
            elif entry["previous"] != head:
                raise Broken(f"entry {number} does not follow entry {last}")
            if digest(entry) != entry["hash"]:
                raise Broken(f"entry {number} was changed")
            if entry["kind"] == "journal.signed":
                key = signature(entry, Path(directory))
                signatures += 1
                if key not in keys:
                    keys.append(key)
            last, head = number, entry["hash"]
    return first, last, signatures, keys


def main():
    lines = [line for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line]
    try:
        first, last, signatures, keys = verify(lines)
    except Broken as problem:
        sys.exit(f"NOT intact: {problem}")
    if len(sys.argv) > 2 and keys != [sys.argv[2]]:
        sys.exit(f"signed by {keys}, not by {sys.argv[2]}")
    print(f"intact by hashlib and openssl: entries {first} to {last}, {signatures} signatures, keys {keys}")


if __name__ == "__main__":
    main()
