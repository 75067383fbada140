//! A real TCP connection to a KEBA P30 on tokio-modbus's server.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_modbus::{ExceptionCode, Request, Response, server};

use super::*;
use crate::{
    device::{
        Catalog,
        bus::{Pace, Wire},
    },
    ids::{EvseId, Identity},
    site::event::Draw,
    units::Wiring,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// What is in the box, and what has happened to it.
#[derive(Debug, Default)]
struct Inside {
    registers: BTreeMap<u16, u16>,
    writes: Vec<(u16, u16)>,
    /// Keeps what it has, whatever is written.
    deaf: Vec<u16>,
    /// Answers nothing.
    mute: bool,
}

#[derive(Clone, Default)]
struct Keba(Arc<Mutex<Inside>>);

impl Keba {
    fn u32(&self, at: u16, value: u32) {
        let mut inside = self.0.lock().unwrap();
        inside.registers.insert(at, (value >> 16) as u16);
        inside.registers.insert(at + 1, (value & 0xFFFF) as u16);
    }

    fn written(&self, register: u16) -> Vec<u16> {
        self.0.lock().unwrap().writes.iter().filter(|(r, _)| *r == register).map(|(_, v)| *v).collect()
    }

    async fn serve(&self, tasks: &mut JoinSet<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keba = self.clone();
        tasks.spawn(async move {
            let serve = |stream, _| {
                let keba = keba.clone();
                async move { Ok(Some((keba, stream))) }
            };
            server::tcp::Server::new(listener).serve(&serve, |_| {}).await.unwrap();
        });
        address
    }
}

impl server::Service for Keba {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, ExceptionCode>> + Send>>;

    fn call(&self, request: Request<'static>) -> Self::Future {
        let mut inside = self.0.lock().unwrap();
        let answer = match request {
            _ if inside.mute => return Box::pin(std::future::pending()),
            Request::ReadHoldingRegisters(start, count) => (start..start + count)
                .map(|at| inside.registers.get(&at).copied())
                .collect::<Option<Vec<u16>>>()
                .map(Response::ReadHoldingRegisters)
                .ok_or(ExceptionCode::IllegalDataAddress),
            Request::WriteSingleRegister(register, value) => {
                inside.writes.push((register, value));
                let place = match register {
                    5004 => Some(1101),
                    5016 => Some(1601),
                    5018 => Some(1603),
                    _ => None,
                };
                if let Some(place) = place
                    && !inside.deaf.contains(&register)
                {
                    inside.registers.insert(place, value);
                }
                Ok(Response::WriteSingleRegister(register, value))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        };
        Box::pin(std::future::ready(answer))
    }
}

struct Rig {
    keba: Keba,
    setpoint: watch::Sender<Option<Setpoint>>,
    released: watch::Sender<bool>,
    fresh: watch::Sender<Mono>,
    clock: Clock,
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// A charging KEBA, its driver, and a plan that is fresh for the whole test.
    async fn start(deaf: &[u16]) -> Self {
        let keba = Keba::default();
        keba.0.lock().unwrap().deaf = deaf.to_vec();
        for (at, value) in [
            (1000, 3),
            (1004, 7),
            (1008, 15_900),
            (1010, 0),
            (1012, 0),
            (1020, 3_657_000),
            (1036, 12_345),
            (1100, 32_000),
            (1600, 32_000),
            (1602, 0),
        ] {
            keba.u32(at, value);
        }
        let mut tasks = JoinSet::new();
        let address = keba.serve(&mut tasks).await.to_string();
        let stop = CancellationToken::new();
        let pace = Pace { answer: Duration::from_millis(300), ..Pace::default() };
        let (bus, serving) = Bus::new(Wire::Tcp { address: address.clone(), pace }, stop.clone());
        tasks.spawn(serving);
        let mut definition = Catalog::load(None).unwrap().find("keba-p30").unwrap().as_ref().clone();
        definition.write_delay = Duration::ZERO;
        let clock = Clock::system();
        let (setpoint, setpoints) = watch::channel(None);
        let (released, permission) = watch::channel(true);
        let (fresh, plans) = watch::channel(Mono(Duration::from_secs(1 << 20)));
        let (events_in, events) = mpsc::channel(256);
        let device = config::EvseDevice {
            definition: "keba-p30".into(),
            at: config::Attachment::Address(address),
            unit: None,
            interval: Duration::from_millis(50),
            failsafe: None,
            card: None,
        };
        let parts = Parts {
            evse: config::Evse {
                id: EvseId::new("left"),
                identity: Identity::new("left"),
                node: 0,
                wiring: Wiring::L123,
                max: Milliamps::amps(32),
                min: Milliamps::amps(6),
                step: Milliamps::amps(1),
                failsafe: Milliamps::amps(6),
                device: Some(device.clone()),
                class: 100,
                weight: 1,
                public: false,
                ocpp: config::EvseOcpp::default(),
            },
            device,
            definition: Arc::new(definition),
            bus,
            setpoint: setpoints,
            released: permission,
            cap: watch::channel(None).1,
            fresh: plans,
            events: events_in,
            clock,
        };
        tasks.spawn(run(parts, stop));
        Self { keba, setpoint, released, fresh, clock, events, _tasks: tasks }
    }

    fn want(&self, sequence: u64, amps: i64) {
        self.setpoint.send_replace(Some(Setpoint {
            sequence,
            limit: Milliamps::amps(amps),
            failsafe: Milliamps::amps(6),
            lease: Duration::from_secs(60),
            one_phase: false,
            reason: String::new(),
        }));
    }

    /// The next event that `choose` takes.
    async fn next<T>(&mut self, mut choose: impl FnMut(&EvseEvent) -> Option<T>) -> T {
        timeout(DEADLINE, async {
            loop {
                match self.events.recv().await.expect("the driver ended") {
                    Event::Evse(id, event) if id.as_str() == "left" => {
                        if let Some(found) = choose(&event) {
                            return found;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
        .await
        .expect("no such event in time")
    }

    async fn confirmed(&mut self, wanted: u64) -> Milliamps {
        self.next(|event| match event {
            EvseEvent::Confirmed { sequence, limit, .. } if *sequence == wanted => Some(*limit),
            EvseEvent::Refused { why, .. } => panic!("refused: {why}"),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> String {
        self.next(|event| match event {
            EvseEvent::Refused { why, .. } => Some(why.clone()),
            EvseEvent::Confirmed { .. } => panic!("confirmed"),
            _ => None,
        })
        .await
    }

    async fn until(&self, what: impl Fn(&Keba) -> bool) {
        timeout(DEADLINE, async {
            while !what(&self.keba) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("in time");
    }
}

#[tokio::test]
async fn a_box_is_taken_on_with_its_failsafe_before_the_first_setpoint_and_read() {
    let mut rig = Rig::start(&[]).await;
    rig.next(|e| matches!(e, EvseEvent::Connected).then_some(())).await;
    rig.next(|e| matches!(e, EvseEvent::Boot { model, .. } if model == "keba-p30").then_some(())).await;
    rig.want(1, 16);
    assert_eq!(rig.confirmed(1).await, Milliamps::amps(16));
    assert_eq!(rig.keba.0.lock().unwrap().writes[..4], [(5018, 10), (5016, 6000), (5004, 16_000), (5014, 1)]);
    rig.next(|e| match e {
        EvseEvent::Status { status: ConnectorStatus::Charging, error } if error.is_empty() => Some(()),
        _ => None,
    })
    .await;
    let draw: Draw = rig.next(|e| if let EvseEvent::Draw(draw) = e { Some(*draw) } else { None }).await;
    assert_eq!(draw.currents, Some([Milliamps(15_900), Milliamps::ZERO, Milliamps::ZERO]));
    assert_eq!((draw.power.unwrap().0, draw.energy.unwrap().0), (3657, 1235));

    rig.want(2, 10);
    assert_eq!(rig.confirmed(2).await, Milliamps::amps(10));
    rig.want(3, 0);
    assert_eq!(rig.confirmed(3).await, Milliamps::ZERO);
    assert_eq!(rig.keba.written(5014).last(), Some(&0));
}

#[tokio::test]
async fn without_release_it_offers_nothing_and_the_setpoint_is_answered_all_the_same() {
    let mut rig = Rig::start(&[]).await;
    rig.released.send_replace(false);
    rig.next(|e| matches!(e, EvseEvent::Connected).then_some(())).await;
    rig.want(1, 16);
    assert_eq!(rig.confirmed(1).await, Milliamps::ZERO);
    assert_eq!(rig.keba.written(5004), [0_u16; 0]);
    rig.released.send_replace(true);
    rig.until(|keba| keba.written(5004) == [16_000] && keba.written(5014).last() == Some(&1)).await;
    rig.released.send_replace(false);
    rig.until(|keba| keba.written(5014).last() == Some(&0)).await;
}

#[tokio::test]
async fn a_box_whose_failsafe_reads_otherwise_is_driven_but_not_trusted() {
    let mut rig = Rig::start(&[5016]).await;
    let problem = rig
        .next(|e| match e {
            EvseEvent::Problem(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        })
        .await;
    assert_eq!(problem, "its failsafe current reads 32, 6 was written");
    rig.want(1, 16);
    assert_eq!(rig.refused().await, "is not managed: its failsafe current reads 32, 6 was written");
    assert_eq!(rig.keba.written(5004), [16_000]);
}

#[tokio::test]
async fn a_setpoint_that_reads_otherwise_is_refused() {
    let mut rig = Rig::start(&[5004]).await;
    rig.next(|e| matches!(e, EvseEvent::Connected).then_some(())).await;
    rig.want(1, 16);
    assert_eq!(rig.refused().await, "the setpoint reads 32, 16 was written");
}

#[tokio::test]
async fn the_watchdog_is_fed_by_fresh_plans_only() {
    let mut rig = Rig::start(&[]).await;
    rig.want(1, 16);
    rig.confirmed(1).await;
    rig.until(|keba| keba.written(5018).len() >= 2).await;
    // No plan since the beginning of time, and the clock is beyond that.
    rig.fresh.send_replace(Mono(Duration::ZERO));
    rig.until(|_| rig.clock.now().mono.0 > STALE).await;
    let fed = rig.keba.written(5018).len();
    rig.want(2, 20);
    // Two thirds of the box's timeout: it would have been fed twice.
    let until = rig.clock.now().mono + Duration::from_secs(7);
    rig.until(|_| rig.clock.now().mono > until).await;
    assert_eq!(rig.keba.written(5018).len(), fed, "fed without a plan");
    assert_eq!(rig.keba.written(5004).last(), Some(&16_000), "written without a plan");
    rig.fresh.send_replace(Mono(Duration::from_secs(1 << 20)));
    rig.setpoint.send_modify(|_| ());
    assert_eq!(rig.confirmed(2).await, Milliamps::amps(20));
    rig.until(|keba| keba.written(5018).len() > fed).await;
}

#[tokio::test]
async fn a_box_that_goes_deaf_ends_its_lease_with_its_own_watchdog_and_is_taken_on_again() {
    let mut rig = Rig::start(&[]).await;
    rig.want(1, 16);
    rig.confirmed(1).await;
    let before = rig.clock.now().mono;
    rig.keba.0.lock().unwrap().mute = true;
    let until = rig
        .next(|e| match e {
            EvseEvent::Confirmed { sequence: 1, lease_until, .. } => Some(*lease_until),
            _ => None,
        })
        .await;
    assert!(until <= before + Duration::from_secs(11), "{until:?} after {before:?}");
    rig.next(|e| matches!(e, EvseEvent::Disconnected).then_some(())).await;
    rig.keba.0.lock().unwrap().mute = false;
    rig.next(|e| matches!(e, EvseEvent::Connected).then_some(())).await;
    assert_eq!(rig.confirmed(1).await, Milliamps::amps(16));
}
