"""The charging profiles that a charge point holds, and the limit that follows (OCPP 1.6 section 3.13)."""

import datetime
from typing import Any

from meter import VOLTS

PHASES = 3


def time_of(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Profiles:
    def __init__(self, hardware_amps: float) -> None:
        self.hardware_amps = hardware_amps
        self.held: dict[tuple[str, int, int], dict[str, Any]] = {}

    def set(self, connector: int, profile: dict[str, Any]) -> None:
        purpose, level = profile["charging_profile_purpose"], profile["stack_level"]
        same_id = [k for k, p in self.held.items() if p["charging_profile_id"] == profile["charging_profile_id"]]
        for key in same_id:
            del self.held[key]
        self.held[purpose, connector, level] = profile

    def clear(self, wanted: dict[str, Any]) -> bool:
        names = {
            "id": lambda key, profile: profile["charging_profile_id"],
            "connector_id": lambda key, profile: key[1],
            "charging_profile_purpose": lambda key, profile: key[0],
            "stack_level": lambda key, profile: key[2],
        }
        gone = [
            key
            for key, profile in self.held.items()
            if all(names[name](key, profile) == value for name, value in wanted.items() if value is not None)
        ]
        for key in gone:
            del self.held[key]
        return bool(gone)

    def amps(self, present: datetime.datetime, started: datetime.datetime | None) -> float:
        """The limit per phase: the smaller of the charge point's maximum and the transaction's profile."""
        maximum = self.of(("ChargePointMaxProfile",), present, started)
        transaction = self.of(("TxProfile", "TxDefaultProfile"), present, started)
        return min(self.hardware_amps, *(limit for limit in (maximum, transaction) if limit is not None), 1e9)

    def of(
        self, purposes: tuple[str, ...], present: datetime.datetime, started: datetime.datetime | None
    ) -> float | None:
        """The first purpose that has a valid profile; among its profiles the highest stack level wins."""
        for purpose in purposes:
            candidates = sorted((k for k in self.held if k[0] == purpose), key=lambda k: k[2], reverse=True)
            for key in candidates:
                limit = scheduled(self.held[key], present, started)
                if limit is not None:
                    return limit
        return None


def scheduled(
    profile: dict[str, Any], present: datetime.datetime, started: datetime.datetime | None
) -> float | None:
    """The profile's limit at an instant; nothing when it does not hold then."""
    if "valid_from" in profile and present < time_of(profile["valid_from"]):
        return None
    if "valid_to" in profile and present >= time_of(profile["valid_to"]):
        return None
    schedule = profile["charging_schedule"]
    if profile["charging_profile_kind"] == "Relative":
        begin = started or present
    else:
        begin = time_of(schedule["start_schedule"]) if "start_schedule" in schedule else present
    elapsed = (present - begin).total_seconds()
    if elapsed < 0 or elapsed >= schedule.get("duration", float("inf")):
        return None
    limit = None
    for period in schedule["charging_schedule_period"]:
        if period["start_period"] <= elapsed:
            limit = float(period["limit"])
            if schedule["charging_rate_unit"] == "W":
                limit /= VOLTS * period.get("number_phases", PHASES)
    return limit
