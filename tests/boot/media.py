"""Puts things on a guest's disk, and damages them, while it is off."""

import os
import pathlib
import random
import re
import subprocess
import tempfile


def tool(*words):
    """Runs a program and returns what it says."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def partition(disk, name):
    """First byte and length of a partition, by its name."""
    table = tool("sgdisk", "-p", disk)
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 7 and words[-1] == name:
            first, last = int(words[1]), int(words[2])
            return first * 512, (last - first + 1) * 512
    raise LookupError(f"no partition {name}")


def names(disk):
    """The partitions' names in order."""
    table = tool("sgdisk", "-p", disk)
    return [line.split()[-1] for line in table.splitlines() if line[:4].strip().isdigit()]


def put(disk, at, data):
    with open(disk, "r+b") as file:
        file.seek(at)
        file.write(data)
        os.fsync(file.fileno())


def write(disk, name, image):
    """Writes an image into a partition."""
    at, length = partition(disk, name)
    data = image.read_bytes()
    if len(data) > length:
        raise ValueError(f"{image} does not fit {name}")
    put(disk, at, data)


def damage(disk, name, offset):
    """Turns 64 bytes at `offset` of a partition into their opposite."""
    at, _ = partition(disk, name)
    with open(disk, "rb") as file:
        file.seek(at + offset)
        data = file.read(64)
    put(disk, at + offset, bytes(byte ^ 0xFF for byte in data))


def wipe(disk, name, after=0):
    """Zeroes a partition, or what comes after a number of bytes of it."""
    at, length = partition(disk, name)
    put(disk, at + after, bytes(length - after))


def fill(disk, name):
    """Fills a partition with noise."""
    at, length = partition(disk, name)
    noise = random.Random(1)
    for offset in range(0, length, 1 << 20):
        put(disk, at + offset, noise.randbytes(min(1 << 20, length - offset)))


def crowd(disk, name, left):
    """Fills the ext4 of a partition with one file, but for so many bytes."""
    at, length = partition(disk, name)
    with tempfile.TemporaryDirectory() as folder:
        image, filler = pathlib.Path(folder, "image"), pathlib.Path(folder, "filler")
        with open(disk, "rb") as file:
            file.seek(at)
            image.write_bytes(file.read(length))
        said = tool("dumpe2fs", "-h", image)
        free = int(re.search(r"Free blocks:\s*(\d+)", said)[1]) * int(re.search(r"Block size:\s*(\d+)", said)[1])
        # A little of it goes into the tree of the file's own blocks.
        filler.write_bytes(b"\xa5" * (free - left))
        tool("debugfs", "-w", "-R", f"write {filler} filler", image)
        put(disk, at, image.read_bytes())
