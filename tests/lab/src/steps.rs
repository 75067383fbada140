//! Steps that every story and test takes: wait until the site is ready, charge, look, settle the bill, end.
//!
//! In: a running [`Lab`]. Out: what came true, or an error that says what did not, with the daemon's last lines.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use ladewart_proto::v1::{Limit, LimitStage, Site};
use tokio::time::Instant;

use crate::{
    backend,
    clock::eventually,
    evse::{Evse, car::Car},
    process::tail,
    site::{Lab, SOON},
};

impl Lab {
    /// Compares the backend's bill with the charge points' own transactions: each is there once, with one stop, and
    /// with the same registers. Gives one line per transaction. Errors: the first difference.
    pub fn compare_bill(&self) -> anyhow::Result<Vec<String>> {
        let mut bill = self.backend.transactions();
        let mut lines = Vec::new();
        for evse in &self.evses {
            for session in evse.state().sessions {
                let fits = |t: &backend::Transaction| {
                    t.identity == evse.identity() && t.tag == session.tag && t.started == session.started
                };
                let at = bill.iter().position(fits);
                let at = at.with_context(|| format!("the transaction of {} is not billed", session.tag))?;
                let t = bill.remove(at);
                ensure!(t.starts == 1, "transaction {} began {} times", t.id, t.starts);
                let stops: Vec<i64> = session.meter_stop.into_iter().collect();
                ensure!(
                    (t.meter_start, &t.meter_stops) == (session.meter_start, &stops),
                    "transaction {} is billed from {} to {:?} Wh, the EVSE counted {} to {stops:?} Wh",
                    t.id,
                    t.meter_start,
                    t.meter_stops,
                    session.meter_start
                );
                let energy = session.meter_stop.map_or(0, |stop| stop - session.meter_start);
                let known = match session.id {
                    Some(id) if id == t.id => String::new(),
                    Some(id) => format!(" (the EVSE knows it as {id})"),
                    None => " (the EVSE knows no id)".to_owned(),
                };
                lines.push(format!("{}: transaction {}{known}, {energy} Wh on both sides", t.identity, t.id));
            }
        }
        ensure!(bill.is_empty(), "the backend bills transactions that no EVSE knows: {bill:?}");
        Ok(lines)
    }

    /// Waits until each charge point is accepted and connected to the backend.
    pub async fn ready(&self) -> anyhow::Result<()> {
        for evse in &self.evses {
            let id = evse.identity();
            eventually(SOON, &format!("{id} is accepted and connected to the backend"), || {
                (evse.state().booted && self.backend.connected(id)).then_some(())
            })
            .await
            .with_context(|| format!("the daemon says\n{}", tail(&self.log)))?;
        }
        Ok(())
    }

    /// A car arrives, a card is shown, the car charges.
    pub async fn charge(&self, id: &str, car: Car, tag: &str) -> anyhow::Result<&Evse> {
        let evse = self.evse(id).with_context(|| format!("there is no EVSE {id}"))?;
        evse.plug(car);
        eventually(SOON, &format!("{id} sees the car"), || evse.state().plugged.then_some(())).await?;
        evse.present(tag);
        eventually(SOON, &format!("the car at {id} charges"), || {
            (evse.state().watts > 1000.0 && evse.state().transaction.flatten().is_some()).then_some(())
        })
        .await
        .with_context(|| format!("the daemon says\n{}", tail(&self.log)))?;
        Ok(evse)
    }

    /// Ends every transaction and compares the bill once the backend has everything.
    pub async fn settle(&self) -> anyhow::Result<Vec<String>> {
        for evse in &self.evses {
            evse.unplug();
        }
        let complete = || {
            let open = self.evses.iter().any(|e| e.state().transaction.is_some() || e.state().waiting > 0);
            let bill = self.backend.transactions();
            let sessions: usize = self.evses.iter().map(|e| e.state().sessions.len()).sum();
            (!open && bill.len() >= sessions && bill.iter().all(|t| !t.meter_stops.is_empty())).then_some(())
        };
        let arrived =
            eventually(Duration::from_secs(30), "every transaction is closed at the backend", complete);
        arrived.await.with_context(|| format!("the daemon says\n{}", tail(&self.log)))?;
        self.compare_bill()
    }

    /// Waits until the daemon's picture of the site shows something.
    pub async fn shows<T>(&self, what: &str, mut look: impl FnMut(&Site) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + SOON;
        loop {
            let site = self.operator.site().await?;
            if let Some(found) = look(&site) {
                return Ok(found);
            }
            ensure!(Instant::now() < end, "the daemon does not show {what}; it shows {site:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a limit has reached a stage.
    pub async fn stage(&self, id: &str, stage: LimitStage) -> anyhow::Result<Limit> {
        let end = Instant::now() + SOON;
        loop {
            let limit =
                self.operator.limit_record(id).await?.with_context(|| format!("there is no limit {id}"))?;
            if limit.stage() == stage {
                return Ok(limit);
            }
            ensure!(Instant::now() < end, "limit {id} did not become {stage:?}: {limit:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// For stories in which an EVSE disobeys: what it draws too much is its own doing. Everything else is checked as
    /// in [`Lab::finish`].
    pub async fn stop_charging_and_ignore_overload(mut self) -> anyhow::Result<()> {
        self.settle().await?;
        let verdict = self.operator.verify().await?;
        ensure!(verdict.intact, "the journal is broken at {}: {}", verdict.broken_at, verdict.problem);
        self.stop_daemon().await
    }

    /// The end of every story and test: the site was safe all along, the evidence is whole, the daemon ends in
    /// order. Gives the number of journal entries.
    pub async fn finish(mut self) -> anyhow::Result<u64> {
        let violations = self.observer.violations();
        ensure!(violations.is_empty(), "the site was not safe:\n{}", violations.join("\n"));
        let verdict = self.operator.verify().await?;
        ensure!(verdict.intact, "the journal is broken at {}: {}", verdict.broken_at, verdict.problem);
        self.stop_daemon().await?;
        Ok(verdict.entries)
    }
}
