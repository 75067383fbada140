"""What a peer saw, one JSON object per line, written through at once."""

import datetime
import json
import pathlib
from typing import Any, Iterator


def now() -> str:
    """The time as OCPP writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Record:
    def __init__(self, file: pathlib.Path) -> None:
        self.file = file.open("a", encoding="utf-8", buffering=1)

    def add(self, kind: str, **fields: Any) -> None:
        self.file.write(json.dumps({"kind": kind, "at": now(), **fields}) + "\n")


def read(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The entries so far; a line that is being written is left for the next time."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
