//! Who answers whom in OCPP 2.0.1 and what 2.1 adds to it (Part 2).
//!
//! The transaction id is the EVSE's own in 2.x (E01): nothing is translated.

use super::super::table::{Down, FAILED, Kind, Offline, REJECTED, Up};

/// Actions of the EVSE.
pub(crate) const UP: &[(&str, Up)] = &[
    ("Authorize", Up::Live(Offline::Card)),
    ("BootNotification", Up::Live(Offline::Boot)),
    ("ClearedChargingLimit", Up::Ordered),
    ("DataTransfer", Up::Live(REJECTED)),
    ("FirmwareStatusNotification", Up::Ordered),
    // V2G timeouts are seconds: refused at once instead of kept (M01, M06).
    ("Get15118EVCertificate", Up::Live(Offline::Fixed(r#"{"status":"Failed","exiResponse":""}"#))),
    ("GetCertificateStatus", Up::Live(FAILED)),
    ("Heartbeat", Up::Live(Offline::Time)),
    ("LogStatusNotification", Up::Ordered),
    ("MeterValues", Up::Meter),
    ("NotifyChargingLimit", Up::Ordered),
    // Reports answer a request; who asked is gone.
    ("NotifyCustomerInformation", Up::Live(Offline::Empty)),
    ("NotifyDisplayMessages", Up::Live(Offline::Empty)),
    ("NotifyEVChargingNeeds", Up::Live(REJECTED)),
    ("NotifyEVChargingSchedule", Up::Live(REJECTED)),
    ("NotifyEvent", Up::Event),
    ("NotifyMonitoringReport", Up::Live(Offline::Empty)),
    ("NotifyReport", Up::Live(Offline::Empty)),
    ("PublishFirmwareStatusNotification", Up::Ordered),
    ("ReportChargingProfiles", Up::Live(Offline::Empty)),
    ("ReservationStatusUpdate", Up::Ordered),
    ("SecurityEventNotification", Up::Ordered),
    ("SignCertificate", Up::Live(REJECTED)),
    ("StatusNotification", Up::Ordered),
    ("TransactionEvent", Up::Durable(Kind::Event)),
];

/// Actions of the EVSE that 2.1 adds.
pub(crate) const UP_21: &[(&str, Up)] = &[
    ("BatterySwap", Up::Ordered),
    ("ClosePeriodicEventStream", Up::Live(Offline::Empty)),
    // The answer must name the certificate's state, which nobody here knows.
    ("GetCertificateChainStatus", Up::Live(Offline::Unknown)),
    ("NotifyDERAlarm", Up::Ordered),
    ("NotifyDERStartStop", Up::Ordered),
    ("NotifyPeriodicEventStream", Up::Send),
    ("NotifyPriorityCharging", Up::Ordered),
    ("NotifySettlement", Up::Ordered),
    ("NotifyWebPaymentStarted", Up::Ordered),
    ("OpenPeriodicEventStream", Up::Live(REJECTED)),
    ("PullDynamicScheduleUpdate", Up::Live(REJECTED)),
    ("ReportDERControl", Up::Live(Offline::Empty)),
    ("VatNumberValidation", Up::Live(Offline::Unknown)),
];

/// Actions of the backend.
pub(crate) const DOWN: &[(&str, Down)] = &[
    ("CancelReservation", Down::Pass),
    ("CertificateSigned", Down::Pass),
    ("ChangeAvailability", Down::Pass),
    ("ClearCache", Down::ClearCache),
    ("ClearChargingProfile", Down::ClearProfile),
    ("ClearDisplayMessage", Down::Pass),
    ("ClearVariableMonitoring", Down::Pass),
    ("CostUpdated", Down::Pass),
    ("CustomerInformation", Down::Pass),
    ("DataTransfer", Down::Pass),
    ("DeleteCertificate", Down::Pass),
    ("GetBaseReport", Down::Pass),
    ("GetChargingProfiles", Down::Profiles),
    ("GetCompositeSchedule", Down::Composite),
    ("GetDisplayMessages", Down::Pass),
    ("GetInstalledCertificateIds", Down::Pass),
    ("GetLocalListVersion", Down::Pass),
    ("GetLog", Down::Pass),
    ("GetMonitoringReport", Down::Pass),
    ("GetReport", Down::Pass),
    ("GetTransactionStatus", Down::TransactionStatus),
    ("GetVariables", Down::Levels),
    ("InstallCertificate", Down::Certificate),
    ("PublishFirmware", Down::Pass),
    ("RequestStartTransaction", Down::Pass),
    ("RequestStopTransaction", Down::Pass),
    ("ReserveNow", Down::Pass),
    ("Reset", Down::Pass),
    ("SendLocalList", Down::Pass),
    ("SetChargingProfile", Down::SetProfile(&[])),
    ("SetDisplayMessage", Down::Pass),
    ("SetMonitoringBase", Down::Pass),
    ("SetMonitoringLevel", Down::Pass),
    ("SetNetworkProfile", Down::Network),
    ("SetVariableMonitoring", Down::Pass),
    ("SetVariables", Down::Settings),
    ("TriggerMessage", Down::Pass),
    ("UnlockConnector", Down::Pass),
    ("UnpublishFirmware", Down::Pass),
    ("UpdateFirmware", Down::Pass),
];

/// Actions of the backend that 2.1 adds.
pub(crate) const DOWN_21: &[(&str, Down)] = &[
    ("AFRRSignal", Down::Pass),
    ("AdjustPeriodicEventStream", Down::Pass),
    ("ChangeTransactionTariff", Down::Pass),
    ("ClearDERControl", Down::Pass),
    ("ClearTariffs", Down::Pass),
    ("GetDERControl", Down::Pass),
    ("GetPeriodicEventStream", Down::Pass),
    ("GetTariffs", Down::Pass),
    ("NotifyAllowedEnergyTransfer", Down::Pass),
    ("RequestBatterySwap", Down::Pass),
    ("SetDERControl", Down::Pass),
    ("SetDefaultTariff", Down::Pass),
    ("UpdateDynamicSchedule", Down::Pass),
    ("UsePriorityCharging", Down::Pass),
];
