"""libraries.py FROM TO PROGRAM: copies the libraries that TO/PROGRAM asks for from the unpacked packages FROM into TO."""

import os
import shutil
import sys

from elf import needed


def main():
    source, target, program = sys.argv[1:4]
    where = {}
    for folder, _, files in os.walk(os.path.join(source, "usr/lib")):
        for name in files:
            where.setdefault(name, os.path.join(folder, name))
    todo, seen = [os.path.join(target, program)], set()
    os.makedirs(os.path.join(target, "lib"), exist_ok=True)
    while todo:
        for name in needed(todo.pop()) or []:
            if name in seen:
                continue
            seen.add(name)
            if name not in where:
                sys.exit(f"the packages hold no {name}")
            copy = os.path.join(target, "lib", name)
            shutil.copyfile(os.path.realpath(where[name]), copy)
            os.chmod(copy, 0o755)
            todo.append(copy)


main()
