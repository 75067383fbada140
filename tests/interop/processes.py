"""Programs of one run: started in a namespace, their output kept, all ended with the run."""

import asyncio
import os
import pathlib
import signal
import time
from typing import Any, Callable


class Failed(Exception):
    """The run cannot go on; the text says why."""


class Processes:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, command: list[str], **options: Any) -> asyncio.subprocess.Process:
        with (self.directory / f"{name}.log").open("ab") as log:
            options = {"stdin": asyncio.subprocess.DEVNULL, "stdout": log, "stderr": log, **options}
            # A session of its own: what the program forks ends with it.
            process = await asyncio.create_subprocess_exec(*command, start_new_session=True, **options)
        self.running[name] = process
        return process

    async def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(name)
        send(process, how)
        try:
            return await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            send(process, signal.SIGKILL)
            return await process.wait()

    async def stop_all(self) -> None:
        for name in reversed(list(self.running)):
            await self.stop(name)

    def log(self, name: str) -> str:
        file = self.directory / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def check(self) -> None:
        for name, process in self.running.items():
            if process.returncode is not None:
                last = "\n".join(self.log(name).splitlines()[-15:])
                raise Failed(f"{name} ended with code {process.returncode}:\n{last}")

    async def until(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
        """Waits for a condition, which may be a coroutine function; a program that ends meanwhile fails the run."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds:.0f} s in vain: {what}")
            await asyncio.sleep(0.2)


def send(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        pass
