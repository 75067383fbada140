//! `ladewartctl status`: the site on one screen.

use ladewart_proto::v1::{self, ContactState, site_service_client::SiteServiceClient};

use crate::{
    evse,
    failure::Failure,
    limit, meter,
    session::Session,
    table::{pairs, table},
    uplink,
    words::{self, NOTHING, Style},
};

pub(crate) async fn run(session: &mut Session) -> Result<(), Failure> {
    let mut client = SiteServiceClient::new(session.channel().await?);
    let answer = session.call(client.get_site(v1::GetSiteRequest {})).await?;
    let site = answer.site.unwrap_or_default();
    session.show("Site", &site, |style| whole(style, &site)).await
}

fn nodes(style: &Style, nodes: &[v1::Node]) -> String {
    let row = |node: &v1::Node| {
        vec![
            words::text(&node.id),
            words::text(&node.parent),
            words::amps(node.fuse_milliamps.into()),
            words::phases(node.available.as_ref()),
            words::phases(node.other_load.as_ref()),
            node.power_limit_watts.map_or_else(|| NOTHING.to_owned(), words::watts),
            words::text(&node.reason),
        ]
    };
    let headings = ["NODE", "BEHIND", "FUSE", "FOR EVSES", "OTHER LOAD", "LIMIT", "WHY"];
    table(style, &headings, nodes.iter().map(row).collect())
}

fn contacts(style: &Style, contacts: &[v1::Contact]) -> String {
    let row = |contact: &v1::Contact| {
        let state = match contact.state() {
            ContactState::Unspecified => "unknown",
            ContactState::Open => "open",
            ContactState::Closed => "closed",
            ContactState::Unreadable => "unreadable: counts as limited",
        };
        let since = style.time(contact.since.as_ref());
        vec![words::text(&contact.id), state.to_owned(), since, words::text(&contact.problem)]
    };
    table(style, &["CONTACT", "STATE", "SINCE", "PROBLEM"], contacts.iter().map(row).collect())
}

fn relays(style: &Style, relays: &[v1::Relay]) -> String {
    let row = |relay: &v1::Relay| {
        let state = if relay.energised { "on" } else { "off" };
        let since = style.time(relay.since.as_ref());
        vec![words::text(&relay.id), state.to_owned(), since, words::text(&relay.problem)]
    };
    table(style, &["RELAY", "STATE", "SINCE", "PROBLEM"], relays.iter().map(row).collect())
}

fn devices(style: &Style, devices: &[v1::Device]) -> String {
    let row = |device: &v1::Device| {
        vec![
            words::text(&device.id),
            device.kind.clone(),
            words::text(&device.node),
            words::watts(device.power_watts),
            if device.granted_watts == 0 { "off".to_owned() } else { words::watts(device.granted_watts) },
            device.measured_watts.map_or_else(|| NOTHING.to_owned(), words::watts),
            words::text(&device.reason),
        ]
    };
    let headings = ["DEVICE", "KIND", "NODE", "POWER", "MAY DRAW", "DRAWS", "WHY"];
    table(style, &headings, devices.iter().map(row).collect())
}

/// The whole picture. Sections that would be empty are left out.
pub(crate) fn whole(style: &Style, site: &v1::Site) -> String {
    let head = pairs(
        style,
        vec![
            ("Site", words::text(&site.name)),
            ("Time", style.time(site.at.as_ref())),
            ("Uplink", uplink::sentence(style, site.uplink.as_ref())),
        ],
    );
    let sections = [
        head,
        nodes(style, &site.nodes),
        evse::overview(style, &site.evses),
        devices(style, &site.devices),
        meter::overview(style, &site.meters),
        contacts(style, &site.contacts),
        relays(style, &site.relays),
        limit::list(style, &site.limits),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> v1::Site {
        let currents =
            |a, b, c| Some(v1::PhaseCurrents { l1_milliamps: a, l2_milliamps: b, l3_milliamps: c });
        v1::Site {
            name: "Depot Süd".into(),
            at: Style::ago(0),
            nodes: vec![
                v1::Node {
                    id: "grid".into(),
                    fuse_milliamps: 63_000,
                    meter: "main".into(),
                    available: currents(14_400, 14_400, 14_400),
                    other_load: currents(20_820, -2100, 49),
                    power_limit_watts: Some(10_000),
                    reason: "limit dso-1 of uid:1001: 10 kW".into(),
                    ..Default::default()
                },
                v1::Node {
                    id: "garage".into(),
                    parent: "grid".into(),
                    fuse_milliamps: 32_000,
                    available: currents(32_000, 32_000, 32_000),
                    reason: "the fuse".into(),
                    ..Default::default()
                },
            ],
            evses: evse::tests::samples(),
            meters: meter::tests::samples(),
            contacts: vec![v1::Contact {
                id: "w4".into(),
                state: ContactState::Unreadable.into(),
                since: Style::ago(60),
                problem: "/dev/gpiochip0 is not there".into(),
            }],
            relays: vec![v1::Relay {
                id: "k1".into(),
                energised: true,
                since: Style::ago(5),
                problem: String::new(),
            }],
            devices: vec![v1::Device {
                id: "pump".into(),
                node: "grid".into(),
                kind: "heat-pump".into(),
                power_watts: 9_000,
                reason: "waits: grid limit dso-1 of 10.00 kW by uid:1001".into(),
                ..Default::default()
            }],
            limits: limit::tests::samples(),
            uplink: Some(uplink::tests::up()),
        }
    }

    #[test]
    fn the_site_on_one_screen() {
        insta::assert_snapshot!(whole(&Style::fixed(), &sample()));
    }

    #[test]
    fn a_site_without_anything_is_shown_as_well() {
        insta::assert_snapshot!(whole(&Style::fixed(), &v1::Site::default()));
    }
}
