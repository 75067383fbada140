"""Reads from ELF files what the image builder must know: whether it is one, and which libraries it asks for."""

import struct

DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3


def needed(path):
    """The names of the libraries and of the interpreter, or None if the file is not ELF (64 or 32 bit, little endian)."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"\x7fELF" or data[5] != 1:
        return None
    wide = data[4] == 2
    if wide:
        (phoff,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
    else:
        (phoff,) = struct.unpack_from("<I", data, 28)
        size, count = struct.unpack_from("<HH", data, 42)
    segments = []
    for index in range(count):
        at = phoff + index * size
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        else:
            kind, offset, address, _, length = struct.unpack_from("<IIIII", data, at)
        segments.append((kind, offset, address, length))

    def text(offset):
        return data[offset : data.index(b"\0", offset)].decode()

    names, tables = [], []
    for kind, offset, _, length in segments:
        if kind == PT_INTERP:
            names.append(text(offset).rsplit("/", 1)[-1])
        if kind == PT_DYNAMIC:
            entry = "<qQ" if wide else "<iI"
            for at in range(offset, offset + length, struct.calcsize(entry)):
                tag, value = struct.unpack_from(entry, data, at)
                if tag == DT_NULL:
                    break
                tables.append((tag, value))
    strings = next((value for tag, value in tables if tag == DT_STRTAB), None)
    if strings is not None:
        base = next(o + strings - a for k, o, a, n in segments if k == PT_LOAD and a <= strings < a + n)
        names += [text(base + value) for tag, value in tables if tag == DT_NEEDED]
    return names
