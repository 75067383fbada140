"""Whether the backend holds the charge points' transactions: none lost, none twice, in order, with their energies."""

import json
from typing import Any, Iterable

KINDS = ("start", "meter", "stop")


def content(entry: dict[str, Any]) -> str:
    """What a message says, without the transaction id, which differs by design."""
    kept = {k: entry[k] for k in ("kind", "meter", "timestamp", "tag", "values") if k in entry}
    return json.dumps(kept, sort_keys=True)


def brief(entry: dict[str, Any]) -> str:
    when = entry.get("timestamp") or entry["values"][0]["timestamp"]
    return f"{entry['kind']} of transaction {entry['tx']} at {when}"


def energy(entries: list[dict[str, Any]]) -> int:
    """meterStop - meterStart over the transactions, in Wh."""
    begun = {e["tx"]: e["meter"] for e in entries if e["kind"] == "start"}
    return sum(e["meter"] - begun.get(e["tx"], 0) for e in entries if e["kind"] == "stop")


def compare_point(sent: list[dict[str, Any]], got: list[dict[str, Any]]) -> list[str]:
    """The differences at one charge point, in words."""
    differences = []
    wanted, found = [content(e) for e in sent], [content(e) for e in got]
    for entry, text in zip(sent, wanted):
        times = found.count(text)
        if times == 0:
            differences.append(f"lost: {brief(entry)}")
        elif times > 1:
            differences.append(f"{times} times: {brief(entry)}")
    differences += [f"never sent: {brief(e)}" for e, text in zip(got, found) if text not in wanted]
    common = [text for text in found if text in wanted]
    if not differences and common != wanted:
        first = next(i for i, (a, b) in enumerate(zip(common, wanted)) if a != b)
        differences.append(f"out of order from message {first + 1}: {brief(sent[first])}")
    if not differences:
        differences += identity_differences(sent, got)
    if not differences and energy(sent) != energy(got):
        differences.append(f"energy {energy(got)} Wh instead of {energy(sent)} Wh")
    return differences


def identity_differences(sent: list[dict[str, Any]], got: list[dict[str, Any]]) -> list[str]:
    """Each id of the site must stand for exactly one id of the backend."""
    forth: dict[int, int] = {}
    back: dict[int, int] = {}
    for mine, theirs in zip(sent, got):
        if forth.setdefault(mine["tx"], theirs["tx"]) != theirs["tx"]:
            return [f"{brief(mine)} came as transaction {theirs['tx']} instead of {forth[mine['tx']]}"]
        if back.setdefault(theirs["tx"], mine["tx"]) != mine["tx"]:
            return [f"transaction {theirs['tx']} holds {back[theirs['tx']]} and {mine['tx']}"]
    return []


def compare(points: Iterable[dict[str, Any]], backend: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per charge point: figures and `differences`."""
    sent_by: dict[str, list] = {}
    got_by: dict[str, list] = {}
    again: dict[str, int] = {}
    first: dict[tuple[str, str], str] = {}
    changed: dict[str, list[str]] = {}
    for entry in points:
        if entry["kind"] in KINDS:
            sent_by.setdefault(entry["point"], []).append(entry)
    for entry in backend:
        if entry["kind"] not in KINDS:
            continue
        point, key = entry["point"], (entry["point"], entry["message"])
        if not entry["again"]:
            first[key] = content(entry)
            got_by.setdefault(point, []).append(entry)
            continue
        again[point] = again.get(point, 0) + 1
        if first[key] != content(entry):
            changed.setdefault(point, []).append(f"repeated with another content: {brief(entry)}")
    rows = []
    for point in sorted(sent_by | got_by):
        sent, got = sent_by.get(point, []), got_by.get(point, [])
        rows.append(
            {
                "point": point,
                "transactions": sum(e["kind"] == "stop" for e in sent),
                "messages sent": len(sent),
                "messages at the backend": len(got),
                "repeated under their id": again.get(point, 0),
                "Wh at the point": energy(sent),
                "Wh at the backend": energy(got),
                "differences": compare_point(sent, got) + changed.get(point, []),
            }
        )
    return rows
