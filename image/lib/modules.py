"""Copies kernel modules, with those they depend on, from an unpacked kernel package.

modules.py KERNEL ROOT NAME...          into ROOT/usr/lib/modules/VERSION, for depmod
modules.py --flat KERNEL FOLDER NAME... into FOLDER, with a file "order" that names them in loading order
"""

import lzma
import os
import re
import sys


def plain(name):
    return name.replace("-", "_")


def main():
    arguments = sys.argv[1:]
    flat = arguments[0] == "--flat"
    kernel, target, *names = arguments[1 if flat else 0 :]
    base = os.path.join(kernel, "usr/lib/modules")
    (version,) = os.listdir(base)
    base = os.path.join(base, version)
    files = {}
    for folder, _, entries in os.walk(base):
        for entry in entries:
            if found := re.fullmatch(r"(.*)\.ko(\.xz)?", entry):
                files[plain(found[1])] = os.path.join(folder, entry)
    with open(os.path.join(base, "modules.builtin"), encoding="ascii") as file:
        builtin = {plain(os.path.basename(line.strip())[:-3]) for line in file}

    order = []
    contents = {}

    def load(name):
        name = plain(name)
        if name in contents or name in builtin:
            return
        if name not in files:
            sys.exit(f"the kernel has no module {name}")
        with open(files[name], "rb") as file:
            data = file.read()
        data = lzma.decompress(data) if files[name].endswith(".xz") else data
        contents[name] = data
        # Soft dependencies of cryptography are those that a missing algorithm would show at run time only.
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends and depends[1] else []:
            load(other)
        soft = re.search(rb"\0softdep=pre: ([^\0]*)\0", data)
        for other in soft[1].decode().split() if soft else []:
            if plain(other) in files:
                load(other)
        order.append(name)

    for name in names:
        load(name)
    for name in order:
        if flat:
            path = os.path.join(target, name + ".ko")
        else:
            inside = os.path.relpath(files[name], base).removesuffix(".xz")
            path = os.path.join(target, "usr/lib/modules", version, inside)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents[name])
    if flat:
        with open(os.path.join(target, "order"), "w", encoding="ascii") as file:
            file.writelines(f"{name}.ko\n" for name in order)
    else:
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            if not os.path.exists(os.path.join(base, name)):
                continue
            with open(os.path.join(base, name), "rb") as source:
                with open(os.path.join(target, "usr/lib/modules", version, name), "wb") as copy:
                    copy.write(source.read())


main()
