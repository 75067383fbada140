//! Looks every 25 ms whether the site is safe.
//!
//! In: the grid connection, the fuse, the grid limit that was acknowledged. Out: violations, in words. Invariant S:
//! one second after a limit was acknowledged, neither the limits in force at the EVSEs nor the cars' real draw is
//! above it; no phase exceeds the fuse for longer than five seconds.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{connection::Connection, log::lock};

/// Time between an acknowledged limit and its effect.
pub const REACTION: Duration = Duration::from_secs(1);
/// How long a phase may exceed the fuse: one meter reading, one plan, and a car that follows slowly.
pub const OVERLOAD: Duration = Duration::from_secs(5);
/// Tenths of an ampere are noise.
const NOISE: f64 = 0.1;

#[derive(Debug, Default)]
struct Seen {
    cap: Option<(f64, Instant)>,
    overloaded_since: [Option<Instant>; 3],
    longest_overload: Duration,
    violations: Vec<String>,
}

/// A running observer; ends when dropped.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Watches a connection with a fuse of `fuse` amperes per phase.
    #[must_use]
    pub fn start(connection: Connection, fuse: f64) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(25));
            loop {
                let now = ticks.tick().await;
                lock(&shared).look(&connection, fuse, now);
            }
        });
        Self { seen, _tasks: tasks }
    }

    /// A limit of so many watts was acknowledged now; `None`: no limit holds from now on.
    pub fn limit(&self, watts: Option<i64>) {
        lock(&self.seen).cap = watts.map(|w| (w as f64, Instant::now()));
    }

    /// What went wrong so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.seen).violations.clone()
    }

    /// The longest time that a phase exceeded the fuse.
    #[must_use]
    pub fn longest_overload(&self) -> Duration {
        lock(&self.seen).longest_overload
    }
}

impl Seen {
    fn look(&mut self, connection: &Connection, fuse: f64, now: Instant) {
        // One violation of a kind tells enough.
        if self.violations.len() >= 100 {
            return;
        }
        if let Some((cap, since)) = self.cap
            && now.duration_since(since) > REACTION
        {
            let (allowed, drawn) = (connection.allowed_watts(), connection.charging_watts());
            let after = now.duration_since(since).as_secs_f32();
            if allowed > cap + 1.0 {
                let text = format!("{after:.2} s after a limit of {cap} W the EVSEs may draw {allowed:.0} W");
                self.violations.push(text);
            }
            if drawn > cap + 1.0 {
                self.violations
                    .push(format!("{after:.2} s after a limit of {cap} W the cars draw {drawn:.0} W"));
            }
        }
        for (i, amps) in connection.currents().into_iter().enumerate() {
            if amps <= fuse + NOISE {
                self.overloaded_since[i] = None;
                continue;
            }
            let since = *self.overloaded_since[i].get_or_insert(now);
            let time = now.duration_since(since);
            self.longest_overload = self.longest_overload.max(time);
            if time > OVERLOAD {
                self.violations.push(format!("L{} is at {amps:.1} A of {fuse} A since {time:.1?}", i + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{connection::L123, evse::State};

    fn charging(limit: f64, amps: f64) -> State {
        State {
            connected: true,
            booted: true,
            plugged: true,
            status: "Charging",
            limit,
            car_phases: 3,
            currents: [amps; 3],
            watts: 3.0 * 230.0 * amps,
            register_wh: 0,
            transaction: Some(Some(1)),
            sessions: Vec::new(),
            waiting: 0,
        }
    }

    /// Lets an observer watch one EVSE for `time` and gives what it found.
    async fn watched(state: State, house: f64, cap: Option<i64>, time: Duration) -> Vec<String> {
        let (_held, state) = watch::channel(state);
        let connection = Connection::default();
        connection.house([house; 3]);
        connection.wire(L123, state);
        let observer = Observer::start(connection, 63.0);
        observer.limit(cap);
        tokio::time::sleep(time).await;
        observer.violations()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_safe_is_not_reported() {
        let found = watched(charging(16.0, 16.0), 47.0, Some(11_040), Duration::from_secs(60)).await;
        assert_eq!(found, Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_setpoint_above_the_limit_is_reported_after_one_second() {
        let early = watched(charging(16.0, 6.0), 0.0, Some(10_000), Duration::from_millis(900)).await;
        assert_eq!(early, Vec::<String>::new());
        let late = watched(charging(16.0, 6.0), 0.0, Some(10_000), Duration::from_millis(1200)).await;
        assert!(late[0].contains("may draw 11040 W"), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_car_that_draws_more_than_the_limit_is_reported() {
        let found = watched(charging(6.0, 16.0), 0.0, Some(10_000), Duration::from_secs(2)).await;
        assert!(found[0].contains("the cars draw 11040 W"), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_overloaded_phase_is_reported_after_five_seconds() {
        let early = watched(charging(16.0, 16.0), 48.0, None, Duration::from_millis(4900)).await;
        assert_eq!(early, Vec::<String>::new());
        let late = watched(charging(16.0, 16.0), 48.0, None, Duration::from_millis(5200)).await;
        assert!(late[0].starts_with("L1 is at 64.0 A of 63 A"), "{late:?}");
    }
}
