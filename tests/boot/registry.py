"""The cases, what they measured, and what most of them look for."""

import json

from guest import Failure

READY = r"ladewart: ready after ([0-9.]+) s"
CONFIRMED = r"ladewart: slot confirmed"
CASES = {}
ROWS = []


def case(quick=False):
    """Registers a case; the first line of its text says what it proves."""

    def register(function):
        CASES[function.__name__] = (function, quick)
        return function

    return register


def row(what, unit, value):
    ROWS.append({"what": what, "unit": unit, "value": value})
    print(f"   {what:44} {value} {unit}", flush=True)


def check(holds, text):
    if not holds:
        raise Failure(text)


def journal(guest):
    """The exported evidence and what the appliance says of its chain."""
    entries = [json.loads(line) for line in guest.ctl("--output", "json", "journal", "export").splitlines() if line]
    guest.ctl("journal", "verify")
    return entries
