#!/usr/bin/env python3
"""The main job over every way through a gateway, all at the same time, while the gateway's TLS is cut every 5 s.

Each way has a curve of its own, for the key exchange as for every certificate.

INTEROP_FLAPS says for how long, in seconds (default 30; the full form is 120).
"""

import argparse
import json
import os
import subprocess
import sys
import threading

import entry
from entry import HERE, ROOT

# Of run.py's --way; the modules of the ways need what `setup` installs.
WAYS = ("dante", "microsocks", "sni", "listen")
COLUMNS = (
    "transactions",
    "messages sent",
    "messages at the backend",
    "repeated under their id",
    "Wh at the point",
    "Wh at the backend",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flaps", type=float, default=float(os.environ.get("INTEROP_FLAPS", "30")))
    parser.add_argument("--points", type=int, default=6, help="charge points of each way (default 6)")
    parser.add_argument("--way", nargs="*", choices=WAYS, default=list(WAYS))
    entry.common_arguments(parser)
    return parser.parse_args()


def follow(way: str, options: argparse.Namespace, codes: dict[str, int]) -> None:
    command = [sys.executable, str(HERE / "run.py"), "--way", way, "--flaps", str(options.flaps)]
    command += ["--points", str(options.points), "--bin", str(options.bin), *(["--keep"] if options.keep else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(f"{way:10} {line}", end="", flush=True)
    codes[way] = process.returncode


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("everyway: needs root for its network namespaces", file=sys.stderr)
        return 2
    entry.enter_environment()
    codes: dict[str, int] = {}
    followers = [threading.Thread(target=follow, args=(way, options, codes)) for way in options.way]
    for follower in followers:
        follower.start()
    for follower in followers:
        follower.join()
    print(f"\n{'way':10} {'curve':15} {'cuts':>5}  " + "  ".join(f"{column:>{len(column)}}" for column in COLUMNS))
    rows = []
    for way in options.way:
        file = ROOT / f"target/report/interop-{way}.json"
        if codes[way] == 0:
            content = json.loads(file.read_text())
            total = content["rows"][-1]
            cells = "  ".join(f"{total[column]:>{len(column)}}" for column in COLUMNS)
            curve, cuts = content["figures"]["session"].split()[-1], content["figures"]["cuts"]
            print(f"{way:10} {curve:15} {cuts:>5}  {cells}")
            row = {"way": way, "peer": content["peer"], "curve": curve, "cuts": cuts}
            rows.append(row | {column: total[column] for column in COLUMNS})
        else:
            print(f"{way:10} FAILED")
    file = ROOT / "target/report/everyway.json"
    content = {"name": "everyway", "unit": "messages, Wh", "seconds": options.flaps, "rows": rows}
    file.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
