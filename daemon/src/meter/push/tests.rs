//! A pseudo terminal each; the far end writes telegrams.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    thread,
};

use nix::{pty::openpty, unistd::ttyname};
use tokio::{sync::mpsc, task::JoinSet};

use super::*;
use crate::{
    device::Catalog,
    ids::MeterId,
    site::Event,
    units::{Milliamps, WattHours, Watts},
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    events: mpsc::Receiver<Event>,
    far: File,
    _near: std::os::fd::OwnedFd,
    _tasks: JoinSet<()>,
}

impl Rig {
    fn start(device: &str) -> Self {
        let pair = openpty(None, None).unwrap();
        let path = ttyname(pair.slave.as_fd()).unwrap();
        let (events_in, events) = mpsc::channel(16);
        let config = config::Meter {
            id: MeterId::new("grid"),
            device: device.to_owned(),
            at: config::Attachment::Port(path.clone()),
            unit: None,
            interval: Duration::from_millis(50),
            inverted: false,
        };
        let definition = Catalog::load(None).unwrap().find(device).unwrap();
        let mut tasks = JoinSet::new();
        let (clock, stop) = (Clock::system(), CancellationToken::new());
        tasks.spawn(run(config, definition, path, events_in, clock, stop));
        Self { events, far: File::from(pair.master), _near: pair.slave, _tasks: tasks }
    }

    async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("no event in time").expect("the task ended")
    }

    /// Writes the bytes again and again until something is told.
    async fn until_told(&mut self, bytes: &[u8]) -> Event {
        timeout(DEADLINE, async {
            loop {
                self.far.write_all(bytes).unwrap();
                if let Ok(event) = timeout(Duration::from_millis(50), self.events.recv()).await {
                    return event.expect("the task ended");
                }
            }
        })
        .await
        .expect("nothing is told")
    }
}

#[tokio::test]
async fn sml_becomes_a_reading_and_a_missing_pin_a_sentence() {
    let mut rig = Rig::start("sml");
    let without = sml::tests::transmission(&[([1, 8, 0], 30, 3, 2324)]);
    match rig.until_told(&without).await {
        Event::MeterProblem(_, why) => assert!(why.contains("enter its PIN"), "{why}"),
        other => panic!("{other:?}"),
    }
    let with = sml::tests::transmission(&[([1, 8, 0], 30, -1, 12_345), ([16, 7, 0], 27, 0, 690)]);
    loop {
        if let Event::Reading(_, reading) = rig.until_told(&with).await {
            assert_eq!((reading.power, reading.import), (Watts(690), Some(WattHours(1235))));
            assert_eq!(reading.currents.0, [Milliamps(3000); 3], "the worst case: nobody knows the phase");
            break;
        }
    }
}

#[tokio::test]
async fn a_meter_that_must_be_asked_is_asked_and_follows_the_speed() {
    let mut rig = Rig::start("iec62056-21-asked");
    let mut far = rig.far.try_clone().unwrap();
    thread::spawn(move || {
        let mut line = Vec::new();
        let mut byte = [0_u8];
        while far.read_exact(&mut byte).is_ok() {
            line.push(byte[0]);
            if line.ends_with(b"/?!\r\n") {
                line.clear();
                let _ = far.write_all(b"/EMH5eHZ\r\n");
            } else if line.ends_with(b"\x06050\r\n") {
                line.clear();
                let mut block = b"1.8.0(000001.0*kWh)\r\n16.7.0(0.460*kW)\r\n!\r\n\x03".to_vec();
                let check = block.iter().fold(0, |sum, b| sum ^ b);
                block.push(check);
                // The master changes its speed meanwhile and throws away what came before.
                thread::sleep(Duration::from_millis(400));
                let _ = far.write_all(&[b"\x02", &block[..]].concat());
            }
        }
    });
    loop {
        match rig.next().await {
            Event::Reading(_, reading) => {
                assert_eq!((reading.power, reading.import), (Watts(460), Some(WattHours(1000))));
                break;
            }
            // A loaded machine may be late for the meter's patience.
            Event::MeterProblem(..) => {}
            other => panic!("{other:?}"),
        }
    }
}
