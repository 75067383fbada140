"""prune.py ROOT KEEP DROP: takes from the root file system what an appliance does not need.

1. What matches a line of DROP goes (shell patterns, from the root).
2. Programs in usr/bin and usr/sbin stay only if KEEP names them; links to what is gone go, too.
3. Libraries stay only if a program or library that stays asks for them, or KEEP names them as "lib NAME" (loaded by
   name at run time).
"""

import glob
import os
import shutil
import sys

from elf import needed


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def main():
    root, keep, drop = sys.argv[1:4]
    for pattern in lines(drop):
        for path in sorted(glob.glob(os.path.join(root, pattern))):
            if os.path.lexists(path):
                remove(path)

    programs, loaded = set(), set()
    for line in lines(keep):
        kind, *names = line.split()
        (programs if kind == "bin" else loaded).update(names)
    there = set()
    for folder in ("usr/bin", "usr/sbin"):
        for name in os.listdir(os.path.join(root, folder)):
            path = os.path.join(root, folder, name)
            applet = os.path.islink(path) and os.readlink(path) == "busybox"
            if name in programs or applet:
                there.add(name)
            else:
                remove(path)
    missing = programs - there
    if missing:
        sys.exit(f"to be kept, but in no package: {', '.join(sorted(missing))}")

    libraries, files = {}, []
    for folder, _, names in os.walk(os.path.join(root, "usr")):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            files.append(path)
    (libdir,) = glob.glob(os.path.join(root, "usr/lib/*-linux-gnu*"))
    for name in os.listdir(libdir):
        path = os.path.join(libdir, name)
        if not os.path.isdir(path):
            libraries[name] = path
    inside = set(libraries.values())
    todo = [path for path in files if path not in inside]
    todo += [libraries[name] for name in libraries if any(name.startswith(prefix) for prefix in loaded)]
    asked = set(todo)
    while todo:
        path = todo.pop()
        for name in (needed(path) or []) if os.path.getsize(path) > 64 else []:
            path = libraries.get(name)
            while path and path not in asked:
                asked.add(path)
                todo.append(os.path.realpath(path))
                path = os.path.realpath(path)
    for name, path in sorted(libraries.items()):
        if path not in asked:
            remove(path)
    for folder, folders, names in os.walk(os.path.join(root, "usr"), topdown=False):
        for name in folders + names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                aim = os.readlink(path)
                aim = os.path.join(root, aim[1:]) if aim.startswith("/") else os.path.join(folder, aim)
                if not os.path.lexists(aim) and not os.readlink(path).startswith(("/run", "/proc", "/dev", "../run")):
                    os.remove(path)


main()
