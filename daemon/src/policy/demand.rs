//! Who wants to charge or to run, and the own rating.

use super::{DeviceShare, Share, Want};
use crate::site::{Site, event::ConnectorStatus};

pub(super) fn shares(site: &Site) -> Vec<Share> {
    site.config
        .evses
        .iter()
        .zip(&site.evses)
        .enumerate()
        .map(|(e, (config, facts))| {
            let (want, reason) = if site.welded(e) {
                (Want::Nothing, "its contactor is welded: nothing switches it off any more".to_owned())
            } else if facts.connected.is_none() {
                (Want::Nothing, "not connected".to_owned())
            } else {
                match facts.status {
                    // Whatever it says of a car that is paused: it was full when it was last offered something. And
                    // whatever it says of one that was seen to take nothing of what it is offered.
                    ConnectorStatus::Preparing
                    | ConnectorStatus::SuspendedEvse
                    | ConnectorStatus::Charging
                        if facts.rest.sated() =>
                    {
                        (Want::Least, "the vehicle takes nothing".to_owned())
                    }
                    ConnectorStatus::Preparing
                    | ConnectorStatus::Charging
                    | ConnectorStatus::SuspendedEvse => (Want::All, format!("own maximum of {}", config.max)),
                    ConnectorStatus::SuspendedEv => (Want::Least, "the vehicle takes nothing".to_owned()),
                    _ if facts.transaction.is_some() => (Want::All, format!("own maximum of {}", config.max)),
                    ConnectorStatus::Finishing => (Want::Nothing, "the charge is over".to_owned()),
                    ConnectorStatus::Faulted => (Want::Nothing, "the EVSE reports a fault".to_owned()),
                    ConnectorStatus::Unavailable => (Want::Nothing, "the EVSE is out of service".to_owned()),
                    _ => (Want::Nothing, "no vehicle".to_owned()),
                }
            };
            Share { want, most: config.max, reason, class: config.class, deadline: None }
        })
        .collect()
}

/// A device decides by itself what it draws of what it may.
pub(super) fn devices(site: &Site) -> Vec<DeviceShare> {
    let share = |device: &crate::config::Device| DeviceShare {
        most: device.power,
        reason: format!("own maximum of {}", device.power),
        class: device.class,
    };
    site.config.devices.iter().map(share).collect()
}
