//! Who answers whom in OCPP 1.6: one table per direction.
//!
//! In: an action and its direction. Out: the way it takes. Invariant: every action has a way; one that the table does
//! not name takes the way of [`OTHER_UP`] or passes south.
//!
//! From the backend to the EVSE everything passes as it is, with two exceptions:
//! - `SetChargingProfile` with the purpose ChargePointMaxProfile is answered `Rejected` here, because the site owns
//!   that purpose at its EVSEs (two of them would not combine to the smaller one, 1.6 §3.13.3). Merging the
//!   backend's with ours takes the place of the refusal once profiles are kept here.
//! - `ClearChargingProfile` passes; if it can have removed our limit, ours is set again before the answer goes north
//!   (1.6 errata 3.25).
//!
//! Transaction ids inside `RemoteStopTransaction` and `SetChargingProfile` are translated to those the EVSE knows.

/// The way of a CALL from the EVSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// Relayed while the backend is there, answered here otherwise.
    Live(Offline),
    /// Kept durably in every case, then sent in order; answered by the backend if that is quick, else here.
    Durable(Kind),
    /// `MeterValues`: durable if they belong to a transaction or to the clock-aligned record, else live.
    Meter,
    /// Relayed while the backend is there and nothing waits; otherwise kept in order and answered `{}`.
    Ordered,
}

/// The messages that make up a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `StartTransaction`.
    Start,
    /// `StopTransaction`.
    Stop,
    /// `MeterValues`.
    Meter,
    /// Anything else that is kept.
    Other,
}

/// The answer while the backend is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offline {
    /// Accepted if the backend accepted this identity before, else Pending; delivered first when it is back.
    Boot,
    /// Our time.
    Time,
    /// What is known of the card, else the configured policy.
    Card,
    /// `{}`; not delivered later.
    Empty,
    /// `{"status":"Rejected"}`; not delivered later.
    Rejected,
    /// CALLERROR `NotImplemented`: nobody here knows the action.
    Unknown,
}

/// Actions of the EVSE (1.6 §4, Security White Paper §5).
pub(crate) const UP: &[(&str, Up)] = &[
    ("BootNotification", Up::Live(Offline::Boot)),
    ("Heartbeat", Up::Live(Offline::Time)),
    ("Authorize", Up::Live(Offline::Card)),
    ("StartTransaction", Up::Durable(Kind::Start)),
    ("StopTransaction", Up::Durable(Kind::Stop)),
    ("MeterValues", Up::Meter),
    ("StatusNotification", Up::Ordered),
    ("DataTransfer", Up::Live(Offline::Rejected)),
    ("DiagnosticsStatusNotification", Up::Ordered),
    ("FirmwareStatusNotification", Up::Ordered),
    ("LogStatusNotification", Up::Ordered),
    ("SignedFirmwareStatusNotification", Up::Ordered),
    ("SecurityEventNotification", Up::Ordered),
    ("SignCertificate", Up::Live(Offline::Rejected)),
];

/// The way of an action that the table does not name.
pub(crate) const OTHER_UP: Up = Up::Live(Offline::Unknown);

/// The way of an action of the EVSE.
pub(crate) fn up(action: &str) -> Up {
    UP.iter().find(|(name, _)| *name == action).map_or(OTHER_UP, |(_, way)| *way)
}

/// The way of a CALL from the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// To the EVSE, byte for byte.
    Pass,
    /// To the EVSE, with the transaction id behind this path in the EVSE's own terms.
    Translate(&'static [&'static str]),
    /// Refused here if it touches the site's purpose, else as [`Down::Translate`].
    Arbitrate(&'static [&'static str]),
    /// To the EVSE; our limit is set again if it can be gone.
    Restore,
}

/// Actions of the backend that do not simply pass.
pub(crate) const DOWN: &[(&str, Down)] = &[
    ("RemoteStopTransaction", Down::Translate(&["transactionId"])),
    ("SetChargingProfile", Down::Arbitrate(&["csChargingProfiles", "transactionId"])),
    ("ClearChargingProfile", Down::Restore),
];

/// The way of an action of the backend.
pub(crate) fn down(action: &str) -> Down {
    DOWN.iter().find(|(name, _)| *name == action).map_or(Down::Pass, |(_, way)| *way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_never_live() {
        assert_eq!(up("StartTransaction"), Up::Durable(Kind::Start));
        assert_eq!(up("StopTransaction"), Up::Durable(Kind::Stop));
        assert_eq!(up("startTransaction"), OTHER_UP);
        assert_eq!(down("RemoteStartTransaction"), Down::Pass);
    }

    #[test]
    fn no_action_is_named_twice() {
        for (at, (name, _)) in UP.iter().enumerate() {
            assert!(UP[..at].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
