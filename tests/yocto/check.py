"""The checks of the Yocto layers that need packages alone, and the seeded faults that test the checks."""

import argparse
import json
import pathlib
import sys
import time

import builds  # noqa: F401 (registers checks)
import disk  # noqa: F401
import faults
import syntax  # noqa: F401
import tree as _tree  # noqa: F401
from findings import CHECKS

TREE = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", nargs="*", help=f"of {', '.join(CHECKS)}, faults; none means all")
    parser.add_argument("--list", action="store_true", help="the checks and what they prove")
    given = parser.parse_args()
    if given.list:
        for which, function in CHECKS.items():
            print(f"{which:14} {function.__doc__.splitlines()[0]}")
        print(f"{'faults':14} {faults.__doc__.splitlines()[0]}")
        return 0
    unknown = [which for which in given.check if which not in (*CHECKS, "faults")]
    if unknown:
        parser.error(f"there is no check {', '.join(unknown)}; there are: {', '.join(CHECKS)}, faults")
    failed, rows = 0, []
    print(f"   {'check':14} {'looked at':>9} {'seconds':>8}  result")
    for which, function in CHECKS.items():
        if given.check and which not in given.check:
            continue
        began = time.monotonic()
        count, found = function(TREE)
        seconds = round(time.monotonic() - began, 1)
        print(f"   {which:14} {count:9} {seconds:8}  {'ok' if not found else f'{len(found)} findings'}", flush=True)
        for finding in found:
            print(f"      {finding}", flush=True)
        failed += bool(found)
        rows.append({"check": which, "looked_at": count, "seconds": seconds, "findings": len(found)})
    if not given.check or "faults" in given.check:
        missed = faults.run(TREE, rows)
        failed += missed
    report = TREE / "target/report"
    report.mkdir(parents=True, exist_ok=True)
    (report / "yocto.json").write_text(json.dumps({"name": "yocto", "unit": "", "rows": rows, "peer": "bitbake, oelint-adv, kas"}) + "\n", encoding="utf-8")
    return 1 if failed else 0


sys.exit(main())
