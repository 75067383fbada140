//! The main job as a story, live and checked: each step waits until it has come true, or the demo ends with the
//! sentence that has not.

mod screen;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ladewart_lab::{
    clock::eventually,
    connection::{L123, L231, L312},
    evse::{Evse, car::Car},
    journal,
    operator::instant,
    process,
    site::{EvsePlan, Lab, Plan, SOON},
    wire::Before,
};
use ladewart_proto::v1::LimitStage;
use tokio::time::Instant;

use self::screen::Screen;

/// The grid operator's limit, W.
const LIMIT: i64 = 10_000;

/// Tells it. `fast` for tests and pipes.
pub(crate) async fn run(fast: bool) -> anyhow::Result<()> {
    let screen = Screen::new();
    let began = Instant::now();
    screen.step("A site with three EVSEs behind a Smart Meter Gateway")?;
    let lab = Lab::start(Plan {
        fuse: 50,
        evses: vec![
            EvsePlan::new("carport", L123, 32),
            EvsePlan::new("yard", L231, 32),
            EvsePlan::new("gate", L312, 32),
        ],
        lease: 30,
        raise_dwell: if fast { 300 } else { 2000 },
        pace: if fast { 20.0 } else { 4.0 },
        house: [3.0; 3],
        meter_interval: Duration::from_millis(500),
        ..Plan::default()
    })
    .await?;
    let story = Story {
        lab,
        screen: &screen,
        pause: if fast { Duration::ZERO } else { Duration::from_millis(5500) },
    };
    let told = tokio::select! {
        told = story.tell() => told,
        broken = screen.draw(&story.lab) => broken.map(|_| ()),
    };
    screen.close()?;
    if let Err(error) = told {
        return Err(error.context(process::tail(&story.lab.log)));
    }
    let overload = story.lab.observer.longest_overload();
    let entries = story.lab.finish().await?;
    screen.step("Summary")?;
    screen.fact("limits kept at every instant; no message lost, none twice")?;
    screen
        .fact(&format!("longest time above the fuse while cars followed: {:.1} s", overload.as_secs_f32()))?;
    screen.fact(&format!("{entries} journal entries; {:.0} s", began.elapsed().as_secs_f32()))?;
    screen.line("journal verified")
}

struct Story<'a> {
    lab: Lab,
    screen: &'a Screen,
    pause: Duration,
}

impl Story<'_> {
    fn evse(&self, id: &str) -> anyhow::Result<&Evse> {
        self.lab.evse(id).with_context(|| format!("there is no EVSE {id}"))
    }

    /// Time to look.
    async fn linger(&self) {
        tokio::time::sleep(self.pause).await;
    }

    fn setpoints(&self) -> String {
        let all: Vec<_> =
            self.lab.evses.iter().map(|e| format!("{} {:.0} A", e.identity(), e.state().limit)).collect();
        all.join(", ")
    }

    async fn tell(&self) -> anyhow::Result<()> {
        self.connected().await?;
        self.cars().await?;
        self.house().await?;
        self.limited().await?;
        self.cut().await?;
        self.back().await?;
        self.cleared().await?;
        self.bill().await?;
        self.evidence().await
    }

    async fn connected(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        for evse in &lab.evses {
            eventually(SOON, &format!("{} is accepted by the backend", evse.identity()), || {
                (evse.state().booted && lab.backend.connected(evse.identity())).then_some(())
            })
            .await?;
        }
        let uplink = lab.operator.uplink().await?;
        self.screen.fact(&format!("gateway {}: {}", uplink.gateway, uplink.tls_session))?;
        if self.screen.terminal() {
            let socket = lab.socket();
            self.screen.fact(&format!("look yourself: ladewartctl --socket {} watch", socket.display()))?;
        }
        self.screen.fact("fuse 50 A; carport on L1 L2 L3, yard on L2 L3 L1, gate on L3 L1 L2")?;
        self.screen.fact("each EVSE has its own connection to the backend, through both TLS legs")?;
        self.linger().await;
        Ok(())
    }

    async fn cars(&self) -> anyhow::Result<()> {
        self.screen.step("Three cars start; one of them charges on one phase")?;
        for (id, phases, max_amps) in [("carport", 3, 16.0), ("yard", 3, 32.0), ("gate", 1, 20.0)] {
            let evse = self.evse(id)?;
            evse.plug(Car { phases, max_amps, room_wh: 60_000.0 });
            eventually(SOON, &format!("{id} sees the car"), || {
                (evse.state().status == "Preparing").then_some(())
            })
            .await?;
            evse.present(&format!("CARD-{id}"));
        }
        for evse in &self.lab.evses {
            eventually(SOON, &format!("the car at {} charges", evse.identity()), || {
                (evse.state().currents[0] >= 6.0 && evse.state().transaction.flatten().is_some())
                    .then_some(())
            })
            .await?;
        }
        // All three meet on one phase of the connection: 47 A are left there.
        let lab = &self.lab;
        eventually(SOON, "the cars share the fuse", || {
            let highest = lab.connection.currents().into_iter().fold(0.0, f64::max);
            (highest > 46.0 && highest <= 50.0).then_some(())
        })
        .await?;
        self.screen.fact(&format!("setpoints: {}", self.setpoints()))?;
        self.linger().await;
        Ok(())
    }

    async fn house(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The house load rises to 25 A on each phase")?;
        lab.connection.house([25.0; 3]);
        let started = Instant::now();
        eventually(SOON, "the setpoints fall and the fuse is kept", || {
            let highest = lab.connection.currents().into_iter().fold(0.0, f64::max);
            let allowed: f64 = lab.evses.iter().map(|e| e.state().limit).sum();
            (highest <= 50.1 && allowed <= 27.1).then_some(())
        })
        .await?;
        let time = started.elapsed().as_secs_f32();
        self.screen.fact(&format!("setpoints after {time:.1} s: {}", self.setpoints()))?;
        self.linger().await;
        self.screen.step("The house load falls to 3 A")?;
        lab.connection.house([3.0; 3]);
        eventually(SOON, "the setpoints rise again", || {
            (lab.evses.iter().map(|e| e.state().limit).sum::<f64>() > 40.0).then_some(())
        })
        .await?;
        self.screen.fact(&format!("setpoints: {}", self.setpoints()))?;
        self.linger().await;
        Ok(())
    }

    async fn limited(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The grid operator limits the controllable devices to 10 kW")?;
        let before = Before::now(&lab.evses);
        let limit = lab.limit("dso-1", LIMIT).await?;
        let acknowledged = before.elapsed();
        let wire = before.until(&lab.evses, LIMIT as f64).await?;
        self.screen.fact(&format!(
            "call → last setpoint on the wire {:.1} ms; evidence synced and acknowledged {:.1} ms",
            wire.as_secs_f64() * 1000.0,
            acknowledged.as_secs_f64() * 1000.0
        ))?;
        ensure!(limit.watts == LIMIT, "the limit was answered as {} W", limit.watts);
        let limit = lab.stage("dso-1", LimitStage::Effective).await?;
        let received = instant(limit.received_at.as_ref()).context("the limit has no time of receipt")?;
        let after = |at: Option<&prost_types::Timestamp>| {
            instant(at).map_or("?".to_owned(), |t| format!("+{} ms", t.duration_since(received).as_millis()))
        };
        self.screen.fact(&format!(
            "received, accepted {}, applied {}, effective {} at {} W measured",
            after(limit.accepted_at.as_ref()),
            after(limit.applied_at.as_ref()),
            after(limit.effective_at.as_ref()),
            limit.measured_watts.unwrap_or_default()
        ))?;
        self.screen.fact(&format!("setpoints: {}", self.setpoints()))?;
        self.linger().await;
        Ok(())
    }

    async fn cut(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The uplink is cut")?;
        lab.gateway.cut();
        for evse in &lab.evses {
            let id = evse.identity();
            eventually(SOON, &format!("the backend loses {id}"), || {
                (!lab.backend.connected(id)).then_some(())
            })
            .await?;
            ensure!(evse.state().connected, "{id} lost its own connection");
        }
        self.screen.fact("the EVSEs notice nothing; the limit holds")?;
        self.linger().await;
        let carport = self.evse("carport")?;
        carport.present("CARD-carport");
        eventually(SOON, "the car at carport ends its charge", || {
            (carport.state().transaction.is_none() && carport.state().waiting == 0).then_some(())
        })
        .await?;
        carport.unplug();
        eventually(SOON, "carport is free", || (carport.state().status == "Available").then_some(())).await?;
        carport.plug(Car { phases: 3, max_amps: 16.0, room_wh: 60_000.0 });
        eventually(SOON, "carport sees the next car", || {
            (carport.state().status == "Preparing").then_some(())
        })
        .await?;
        carport.present("CARD-visitor");
        let provisional = eventually(SOON, "the next car charges", || {
            carport.state().transaction.flatten().filter(|_| carport.state().watts > 1000.0)
        })
        .await?;
        let waiting: u64 = lab.operator.site().await?.evses.iter().map(|e| e.queued_messages).sum();
        ensure!(waiting > 0, "nothing waits for the backend");
        self.screen.fact(&format!(
            "one car finished, another began under provisional id {provisional}; {waiting} messages wait"
        ))?;
        self.linger().await;
        Ok(())
    }

    async fn back(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The uplink returns")?;
        let started = Instant::now();
        lab.gateway.restore();
        eventually(Duration::from_secs(30), "the queued transactions arrive", || {
            let bill = lab.backend.transactions();
            let done = bill.iter().any(|t| t.tag == "CARD-carport" && t.meter_stops.len() == 1);
            (done && bill.iter().any(|t| t.tag == "CARD-visitor")).then_some(())
        })
        .await?;
        let deadline = Instant::now() + SOON;
        while lab.operator.site().await?.evses.iter().any(|e| e.queued_messages > 2) {
            ensure!(Instant::now() < deadline, "the queue does not empty");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.screen.fact(&format!(
            "queued messages delivered, in order, {:.1} s later",
            started.elapsed().as_secs_f32()
        ))?;
        self.linger().await;
        Ok(())
    }

    async fn cleared(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The grid operator clears the limit")?;
        lab.clear("dso-1").await?;
        eventually(SOON, "the setpoints rise again", || {
            (lab.connection.charging_watts() > 15_000.0).then_some(())
        })
        .await?;
        self.screen.fact(&format!("setpoints: {}", self.setpoints()))?;
        self.linger().await;
        Ok(())
    }

    async fn bill(&self) -> anyhow::Result<()> {
        let lab = &self.lab;
        self.screen.step("The cars leave; the backend's bill is compared with the EVSEs' registers")?;
        for line in lab.settle().await? {
            self.screen.fact(&line)?;
        }
        Ok(())
    }

    async fn evidence(&self) -> anyhow::Result<()> {
        self.screen.step("The journal is exported and its hash chain recomputed")?;
        let entries = self.lab.operator.journal().await?;
        let head = journal::verify(&entries)?;
        let verdict = self.lab.operator.verify().await?;
        ensure!(verdict.intact, "the daemon finds its journal broken at {}", verdict.broken_at);
        for stage in ["limit.accepted", "limit.applied", "limit.effective", "limit.cleared"] {
            let found = entries.iter().any(|e| e.kind == stage && e.subject == "dso-1");
            ensure!(found, "the journal holds no {stage} of dso-1");
        }
        self.screen.fact(&format!("{} entries, head {}…", entries.len(), &head[..16]))?;
        Ok(())
    }
}
