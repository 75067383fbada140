"""The boot tests. Each case makes its own guest, and says in one line what it saw."""

import argparse
import json
import subprocess
import sys
import time

# In this order the cases run.
import basics  # noqa: F401
import inside  # noqa: F401
import faults  # noqa: F401
from guest import REPO, Failure
from registry import CASES, ROWS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help="cases; none means all")
    parser.add_argument("--quick", action="store_true", help="boot, READY, ladewartctl, one power cut")
    parser.add_argument("--list", action="store_true", help="the cases and what they prove")
    given = parser.parse_args()
    if given.list:
        for name, (function, quick) in CASES.items():
            print(f"{name:26} {'quick' if quick else '     '} {function.__doc__.splitlines()[0]}")
        return 0
    unknown = [name for name in given.case if name not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are: {', '.join(CASES)}")
    chosen = given.case or [name for name, (_, quick) in CASES.items() if quick or not given.quick]
    failed = []
    for name in chosen:
        function = CASES[name][0]
        print(f"── {name}: {function.__doc__.splitlines()[0]}", flush=True)
        began = time.monotonic()
        try:
            function()
            print(f"   passed after {time.monotonic() - began:.0f} s", flush=True)
        except (Failure, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"   failed: {error}", flush=True)
    report = REPO / "target/report"
    report.mkdir(parents=True, exist_ok=True)
    (report / "boot.json").write_text(json.dumps({"name": "boot", "unit": "mixed", "rows": ROWS}) + "\n", encoding="utf-8")
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


sys.exit(main())
