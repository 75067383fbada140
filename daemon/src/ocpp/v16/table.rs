//! Who answers whom in OCPP 1.6 (§4, §5) with the Security White Paper's actions.
//!
//! Transaction ids inside `RemoteStopTransaction` and `SetChargingProfile` are translated to those the EVSE knows.

use super::super::table::{Down, Kind, Offline, REJECTED, Up};

/// Actions of the EVSE.
pub(crate) const UP: &[(&str, Up)] = &[
    ("BootNotification", Up::Live(Offline::Boot)),
    ("Heartbeat", Up::Live(Offline::Time)),
    ("Authorize", Up::Live(Offline::Card)),
    ("StartTransaction", Up::Durable(Kind::Start)),
    ("StopTransaction", Up::Durable(Kind::Stop)),
    ("MeterValues", Up::Meter),
    ("StatusNotification", Up::Ordered),
    ("DataTransfer", Up::Live(REJECTED)),
    ("DiagnosticsStatusNotification", Up::Ordered),
    ("FirmwareStatusNotification", Up::Ordered),
    ("LogStatusNotification", Up::Ordered),
    ("SignedFirmwareStatusNotification", Up::Ordered),
    ("SecurityEventNotification", Up::Ordered),
    ("SignCertificate", Up::Live(REJECTED)),
];

/// Actions of the backend.
pub(crate) const DOWN: &[(&str, Down)] = &[
    ("CancelReservation", Down::Pass),
    ("CertificateSigned", Down::Pass),
    ("ChangeAvailability", Down::Pass),
    ("ChangeConfiguration", Down::Settings),
    ("ClearCache", Down::ClearCache),
    ("ClearChargingProfile", Down::ClearProfile),
    ("DataTransfer", Down::Pass),
    ("DeleteCertificate", Down::Pass),
    ("ExtendedTriggerMessage", Down::Pass),
    ("GetCompositeSchedule", Down::Composite),
    ("GetConfiguration", Down::Levels),
    ("GetDiagnostics", Down::Pass),
    ("GetInstalledCertificateIds", Down::Pass),
    ("GetLocalListVersion", Down::Pass),
    ("GetLog", Down::Pass),
    ("InstallCertificate", Down::Certificate),
    ("RemoteStartTransaction", Down::Pass),
    ("RemoteStopTransaction", Down::Translate(&["transactionId"])),
    ("ReserveNow", Down::Pass),
    ("Reset", Down::Pass),
    ("SendLocalList", Down::Pass),
    ("SetChargingProfile", Down::SetProfile(&["csChargingProfiles", "transactionId"])),
    ("SignedUpdateFirmware", Down::Pass),
    ("TriggerMessage", Down::Pass),
    ("UnlockConnector", Down::Pass),
    ("UpdateFirmware", Down::Pass),
];
