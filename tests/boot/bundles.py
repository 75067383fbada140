"""Update bundles that must be refused, each with what the refusal must say."""

import os
import shutil
import subprocess

from guest import BOARD, BUILT, REPO

KEYS = REPO / "target/image/keys"


def bundle(folder, name, *, compatible=f"ladewart-{BOARD}", version="9999.0.0", size=1 << 20, key=None, images=None):
    """A small signed bundle; its content is noise, which must never be booted, but for the images that are given."""
    certificate, private = key or (KEYS / "development.pem", KEYS / "development.key")
    source, made = folder / f"{name}.d", folder / f"{name}.raucb"
    source.mkdir()
    for image in ("root.img", "boot.img"):
        if images and image in images:
            shutil.copyfile(images[image], source / image)
            continue
        with (source / image).open("wb") as file:
            file.write(os.urandom(4096))
            file.truncate(size)
    (source / "manifest.raucm").write_text(
        f"[update]\ncompatible={compatible}\nversion={version}\n\n[bundle]\nformat=verity\n\n"
        "[image.rootfs]\nfilename=root.img\n\n[image.boot]\nfilename=boot.img\n",
        encoding="utf-8",
    )
    subprocess.run(
        ["rauc", "bundle", f"--cert={certificate}", f"--key={private}", source, made], check=True, capture_output=True
    )
    return made


def stranger(folder):
    """A key that the appliance does not know."""
    certificate, private = folder / "stranger.pem", folder / "stranger.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=stranger", "-keyout", private, "-out", certificate,
        ],
        check=True, capture_output=True,
    )
    return certificate, private


def expired(folder):
    """A key that the appliance's own authority signed, for a time that is over."""
    certificate, private, request = folder / "expired.pem", folder / "expired.key", folder / "expired.csr"
    subprocess.run(
        [
            "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=expired", "-keyout", private, "-out", request,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [
            "openssl", "x509", "-req", "-in", request, "-CA", KEYS / "development.pem", "-CAkey", KEYS / "development.key",
            "-CAcreateserial", "-days", "-1", "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, private


def bad(folder):
    """Name -> (file, what the refusal says)."""
    good = (BUILT / "update.raucb").read_bytes()
    truncated, unsigned = folder / "truncated.raucb", folder / "unsigned.raucb"
    truncated.write_bytes(good[: len(good) // 2])
    unsigned.write_bytes(b"\0" * (1 << 20))
    damaged = folder / "damaged.raucb"
    middle = 1 << 20
    damaged.write_bytes(good[:middle] + bytes(byte ^ 0xFF for byte in good[middle : middle + 64]) + good[middle + 64 :])
    return {
        "truncated": (truncated, r"signature|size|truncat"),
        "unsigned": (unsigned, r"signature|size"),
        "damaged": (damaged, r"."),
        "signed by a stranger": (bundle(folder, "stranger", key=stranger(folder)), r"signature|certificate"),
        "signed by an expired key": (bundle(folder, "expired", key=expired(folder)), r"expired|signature|certificate"),
        "for another board": (bundle(folder, "board", compatible="other-board"), r"[Cc]ompatible"),
        "older": (bundle(folder, "older", version="0.0.1"), r"older than the running"),
        "too large for its slot": (bundle(folder, "large", size=80 << 20), r"size|space|large|big|room|small"),
    }
