//! Charge points that are played here: the site as a whole, its controller, and each device that does not speak OCPP.
//!
//! In: the configuration, who releases which device. Out: what the gateway plays. Invariant: a device is played only
//! where there is a backend to play it to; nothing else releases it then.

use std::sync::Arc;

use super::devices::Release;
use crate::{
    config::{self, Config},
    control,
    ids::{EvseId, Identity},
    ocpp::{self, Version, local::Stands, orders::Inbox},
    policy,
    smgw::Dial,
    units::Wiring,
};

/// All of them. `releases` and `inboxes` are in the same order.
pub(super) fn all(
    config: &Config,
    site: &control::Handle,
    releases: Vec<Release>,
    inboxes: Vec<Inbox>,
    ways: &[Option<Arc<dyn Dial>>],
) -> Vec<ocpp::Local> {
    let devices = releases.into_iter().zip(inboxes).map(|((e, released), inbox)| {
        let evse = &config.evses[e];
        let free = evse.device.as_ref().and_then(|device| device.card.clone());
        ocpp::Local {
            settings: config::Evse {
                ocpp: spoken(vec![Version::V16], evse.ocpp.backend.clone()),
                ..evse.clone()
            },
            way: ways.get(e).cloned().flatten(),
            stands: Stands::Evse { evse: evse.id.clone(), most: evse.max, free, released },
            view: site.view(),
            inbox,
        }
    });
    devices.chain(whole(config, site)).chain(controller(config, site)).collect()
}

/// Over the pipe to our own station.
fn spoken(versions: Vec<Version>, backend: Option<config::Backend>) -> config::EvseOcpp {
    config::EvseOcpp { versions, backend, ..config::EvseOcpp::default() }
}

fn whole(config: &Config, site: &control::Handle) -> Option<ocpp::Local> {
    let fuse = config.nodes.first()?.fuse.0.into_iter().min()?;
    let stands = Stands::Site { site: site.clone(), most: fuse };
    own(config.ocpp.site.as_ref()?, vec![Version::V16], stands, config, site)
}

fn controller(config: &Config, site: &control::Handle) -> Option<ocpp::Local> {
    let versions = vec![Version::V201, Version::V21];
    own(config.ocpp.controller.as_ref()?, versions, Stands::Controller, config, site)
}

/// A station of the site itself, as it stands at its grid connection.
fn own(
    identity: &Identity,
    versions: Vec<Version>,
    stands: Stands,
    config: &Config,
    site: &control::Handle,
) -> Option<ocpp::Local> {
    let fuse = config.nodes.first()?.fuse.0.into_iter().min()?;
    // Nobody orders the site about over the interface.
    let (_, inboxes) = ocpp::Orders::new([&EvseId::new(identity.as_str())]);
    Some(ocpp::Local {
        settings: config::Evse {
            id: EvseId::new(identity.as_str()),
            identity: identity.clone(),
            node: 0,
            wiring: Wiring::L123,
            max: fuse,
            min: fuse,
            step: fuse,
            failsafe: fuse,
            device: None,
            ocpp: spoken(versions, None),
            class: policy::USUAL,
            weight: 1,
            public: false,
        },
        way: None,
        stands,
        view: site.view(),
        inbox: inboxes.into_iter().next()?,
    })
}
