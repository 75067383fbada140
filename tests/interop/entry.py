"""How every run begins and ends: its environment, its network, its directory, its exit code."""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, Awaitable, Callable

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def enter_environment() -> None:
    """Continues in the environment that `setup` makes."""
    if os.environ.get("LADEWART_INTEROP") != "1":
        python = subprocess.run([HERE / "setup"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        os.environ |= {"LADEWART_INTEROP": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        os.execv(python, [python, *sys.argv])


def common_arguments(parser: Any) -> None:
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/debug", help="where ladewartd lies")
    parser.add_argument("--keep", action="store_true", help="keep the run's directory")


def main(name: str, keep: bool, run: Callable[[pathlib.Path, Any], Awaitable[int]]) -> int:
    """Runs something in a directory and a network of its own, which are gone afterwards whatever happened."""
    if os.geteuid() != 0:
        print(f"{name}: needs root for its network namespaces", file=sys.stderr)
        return 2
    enter_environment()
    from network import Network
    from processes import Failed

    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda *_: sys.exit(143))
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"ladewart-{name}-"))
    code = 1
    try:
        with Network() as network:
            code = asyncio.run(run(directory, network))
    except Failed as error:
        print(f"{name}: FAILED: {error}")
    finally:
        if keep or code != 0:
            print(f"logs in {directory}")
        else:
            shutil.rmtree(directory)
    return code
