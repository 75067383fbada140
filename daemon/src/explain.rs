//! Why an EVSE gets what it gets, and what would have to change.
//!
//! In: the site and its plan. Out: [`Explanation`]s in words, in the order in which the decision was made. Invariant:
//! nothing is decided here; what is said is what the plan, the rules and the facts say. Pure.

use crate::{
    ids::EvseId,
    plan::Plan,
    policy::{self, Want},
    rules,
    site::Site,
    time::Now,
    units::Milliamps,
};

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// The EVSE.
    pub evse: String,
    /// What it may draw per phase.
    pub granted: Milliamps,
    /// What decides, in a sentence.
    pub because: String,
    /// Each thing that was looked at.
    pub lines: Vec<Line>,
    /// What would have to change for more, each a sentence.
    pub changes: Vec<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `"vehicle"`, `"rule night"`, `"node main"`, `"setpoint"`, `"draw"`.
    pub about: String,
    /// What it says.
    pub says: String,
}

/// Explains what an EVSE gets under a plan; none if there is no such EVSE.
#[must_use]
pub fn explain(site: &Site, plan: &Plan, id: &EvseId, now: Now) -> Option<Explanation> {
    let e = site.config.evses.iter().position(|evse| evse.id == *id)?;
    let (config, facts, grant) = (&site.config.evses[e], &site.evses[e], plan.grants.get(e)?);
    let budget = policy::budget(site, now);
    let share = budget.shares.get(e)?;
    let mut lines = Vec::new();
    let mut line = |about: String, says: String| lines.push(Line { about, says });

    line(
        "vehicle".to_owned(),
        match share.want {
            Want::Nothing => format!("nothing can charge: {}", share.reason),
            Want::Least => "it takes nothing at present; it may begin again".to_owned(),
            Want::All => format!("it may take up to {} by itself", config.max),
        },
    );
    let trace = rules::trace(site, e, now);
    for (rule, verdict, why) in &trace {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        line(format!("rule {rule}"), format!("{verdict}{why}"));
    }
    if let Some(cap) = site.wishes[e].cap {
        line("rules".to_owned(), format!("at most {cap}: {}", site.wishes[e].reason));
    }
    if share.most < config.max {
        line("own bound".to_owned(), format!("at most {}: {}", share.most, share.reason));
    }
    let way = way(site, config.node);
    for n in &way {
        let others: Vec<String> = site
            .behind(*n)
            .filter(|other| *other != e && plan.grants[*other].limit > Milliamps::ZERO)
            .map(|other| format!("{} {}", site.config.evses[other].id, plan.grants[other].limit))
            .collect();
        let with = if others.is_empty() { "nobody else".to_owned() } else { others.join(", ") };
        line(
            format!("node {}", site.config.nodes[*n].id),
            format!("{}; shared with {with}", plan.nodes[*n].reason),
        );
    }
    line(
        "setpoint".to_owned(),
        match facts.leash.newest() {
            None => "none was sent yet".to_owned(),
            Some(s) if facts.leash.settled() => format!("{} is confirmed", s.limit),
            Some(s) => format!("{} was sent and is not confirmed yet", s.limit),
        },
    );
    if let Some(phases) = facts.draw_phases(config).filter(|_| facts.draw.is_some()) {
        let age = facts.draw.map_or(0, |draw| now.mono.since(draw.at.mono).as_secs());
        let [a, b, c] = phases.0;
        line("draw".to_owned(), format!("{a}, {b}, {c} on L1, L2, L3, measured {age} s ago"));
    }
    let changes = changes(site, plan, e, share, &trace, &way);
    Some(Explanation {
        evse: id.to_string(),
        granted: grant.limit,
        because: grant.reason.clone(),
        lines,
        changes,
    })
}

/// The nodes from an EVSE to the grid connection.
fn way(site: &Site, node: usize) -> Vec<usize> {
    let mut way = vec![node];
    while let Some(parent) = way.last().and_then(|n| site.config.nodes[*n].parent) {
        way.push(parent);
    }
    way
}

fn changes(
    site: &Site,
    plan: &Plan,
    e: usize,
    share: &policy::Share,
    trace: &[(String, &'static str, String)],
    way: &[usize],
) -> Vec<String> {
    let (config, facts, grant) = (&site.config.evses[e], &site.evses[e], &plan.grants[e]);
    let mut changes = Vec::new();
    if facts.connected.is_none() {
        changes.push("the EVSE must connect".to_owned());
    } else if share.want == Want::Nothing {
        changes.push(format!("a vehicle must be there and ready; now: {}", share.reason));
    } else if grant.limit >= config.max {
        changes.push(format!("nothing: {} is all that this EVSE may", config.max));
        return changes;
    }
    if let Some(cap) = site.wishes[e].cap
        && cap <= grant.limit
        && cap < config.max
    {
        for (rule, verdict, why) in trace.iter().filter(|(_, verdict, _)| *verdict != "passed over") {
            changes.push(match *verdict {
                "holds" => format!("rule {rule} must no longer hold, or allow more"),
                _ => format!("rule {rule} would have to hold, if it allows more; now {verdict}: {why}"),
            });
        }
    } else if share.want != Want::Nothing && share.most <= grant.limit && share.most < config.max {
        changes.push(format!("this must end: {}", share.reason));
    }
    if changes.is_empty() {
        let least = way.iter().find(|n| grant.reason.contains(site.config.nodes[**n].id.as_str()));
        let rest: Vec<String> = least
            .into_iter()
            .flat_map(|n| site.behind(*n).collect::<Vec<_>>())
            .filter(|other| *other != e && plan.grants[*other].limit > Milliamps::ZERO)
            .map(|other| site.config.evses[other].id.to_string())
            .collect();
        changes.push(format!("this must leave more room: {}", grant.reason));
        if !rest.is_empty() {
            changes.push(format!("or one of these must take less: {}", rest.join(", ")));
        }
    }
    if grant.limit == Milliamps::ZERO && share.want == Want::All && config.min > Milliamps::ZERO {
        changes.push(format!("at least {} per phase must be free before it can begin", config.min));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        config::{self, Role},
        grid::{Book, Wish},
        ids::LimitId,
        plan,
        site::{
            Event,
            event::{ConnectorStatus, EvseEvent},
        },
        time::{Mono, Wall},
        units::Watts,
    };

    const SITE: &str = "[site]\nname = \"x\"\n[grid]\nreturn_over = \"0 s\"\n[[node]]\nid = \"main\"\nfuse = \"40 A\"\n\
        [[evse]]\nid = \"left\"\nmax = \"32 A\"\nfailsafe = \"0 A\"\n\
        [[evse]]\nid = \"right\"\nmax = \"32 A\"\nfailsafe = \"0 A\"\n";

    struct Bench {
        site: Site,
        now: Now,
        sequence: u64,
    }

    impl Bench {
        fn new(more: &str) -> Self {
            let source = config::Source::new("site.toml".into(), format!("{SITE}{more}"));
            let config = Arc::new(config::parse(&source).unwrap_or_else(|e| panic!("{e}")));
            let now = Now { mono: Mono(Duration::from_secs(1000)), wall: Wall(1_800_000_000_000) };
            Self { site: Site::new(config, Book::default(), now), now, sequence: 0 }
        }

        fn tell(&mut self, evse: &str, event: EvseEvent) {
            self.site.apply(Event::Evse(EvseId::new(evse), event), self.now);
        }

        fn charges(&mut self, evse: &str, status: ConnectorStatus) {
            self.tell(evse, EvseEvent::Connected);
            self.tell(evse, EvseEvent::Status { status, error: String::new() });
        }

        /// Decides and confirms for a while; then explains `left`.
        fn explained(&mut self, seconds: u64) -> Explanation {
            let mut plan = None;
            for _ in 0..=seconds {
                self.now = self.now.plus(Duration::from_secs(1));
                rules::apply(&mut self.site, self.now);
                let made = plan::plan(&self.site, &policy::budget(&self.site, self.now), self.now);
                self.site.granted(&made, self.now);
                for (e, grant) in made.grants.iter().enumerate() {
                    let (facts, control) = (&mut self.site.evses[e], self.site.config.control);
                    let due = crate::evse::due(facts, grant, control.lease, self.sequence, self.now.mono);
                    if let Some(s) = due {
                        self.sequence = s.sequence;
                        facts.leash.sent(s, self.now.mono, Milliamps::amps(32));
                        facts.leash.confirmed(self.sequence, self.now.mono + control.lease, self.now.mono);
                    }
                }
                plan = Some(made);
            }
            explain(&self.site, &plan.unwrap(), &EvseId::new("left"), self.now).unwrap()
        }

        fn limit(&mut self, watts: i64) {
            let wish = Wish { id: Some(LimitId::new("dso")), ..Wish::new("uid:1", Role::Grid, Watts(watts)) };
            self.site.set_limit(wish, self.now, || LimitId::new("dso")).unwrap();
        }
    }

    fn says(told: &Explanation, about: &str) -> String {
        let line = told.lines.iter().find(|line| line.about == about);
        line.unwrap_or_else(|| panic!("nothing about {about} in {told:#?}")).says.clone()
    }

    #[test]
    fn who_is_not_there_is_told_what_is_missing() {
        let mut bench = Bench::new("");
        let told = bench.explained(1);
        assert_eq!(told.changes, ["the EVSE must connect"]);
        assert_eq!(says(&told, "vehicle"), "nothing can charge: not connected");
        bench.charges("left", ConnectorStatus::Available);
        let told = bench.explained(1);
        assert_eq!(told.granted, Milliamps::ZERO);
        assert_eq!(told.changes, ["a vehicle must be there and ready; now: no vehicle"]);
        assert!(
            explain(
                &bench.site,
                &plan::plan(&bench.site, &policy::budget(&bench.site, bench.now), bench.now),
                &EvseId::new("attic"),
                bench.now
            )
            .is_none()
        );
    }

    #[test]
    fn a_shared_fuse_names_the_others() {
        let mut bench = Bench::new("");
        bench.charges("left", ConnectorStatus::Charging);
        bench.site.evses[0].mask = Some(crate::units::PerPhase([true; 3]));
        let told = bench.explained(60);
        assert_eq!(told.granted, Milliamps::amps(32), "{told:#?}");
        assert_eq!(told.changes, ["nothing: 32.0 A is all that this EVSE may"]);
        bench.charges("right", ConnectorStatus::Charging);
        bench.site.evses[1].mask = Some(crate::units::PerPhase([true; 3]));
        let told = bench.explained(60);
        assert_eq!(told.granted, Milliamps::amps(20), "{told:#?}");
        assert_eq!(told.because, "fuse main of 40.0 A");
        assert_eq!(
            says(&told, "node main"),
            "fuse main of 40.0 A; unbalance of at most 20.0 A at main; shared with right 20.0 A"
        );
        assert_eq!(says(&told, "setpoint"), "20.0 A is confirmed");
        assert_eq!(
            told.changes,
            ["this must leave more room: fuse main of 40.0 A", "or one of these must take less: right"]
        );
    }

    #[test]
    fn a_limit_below_the_least_current_says_what_must_be_free() {
        let mut bench = Bench::new("");
        bench.charges("left", ConnectorStatus::Charging);
        bench.explained(5);
        bench.limit(1_000);
        let told = bench.explained(5);
        assert_eq!(told.granted, Milliamps::ZERO);
        assert!(told.because.starts_with("waits: grid limit dso of 1.00 kW by uid:1"), "{told:#?}");
        assert_eq!(told.changes.last().unwrap(), "at least 6.0 A per phase must be free before it can begin");
    }

    #[test]
    fn a_rule_is_named_with_those_that_do_not_hold() {
        let rules = "[[variable]]\nname = \"MODE\"\ndefault = 0\n\
            [[rule]]\nid = \"fast\"\nwhen = \"MODE == 1\"\ncurrent = \"20 A\"\n[[rule]]\nid = \"slow\"\ncurrent = \"8 A\"\n";
        let mut bench = Bench::new(rules);
        bench.charges("left", ConnectorStatus::Charging);
        let told = bench.explained(20);
        assert_eq!((told.granted, told.because.as_str()), (Milliamps::amps(8), "rule \"slow\""), "{told:#?}");
        assert_eq!(says(&told, "rule fast"), "does not hold: MODE == 1 does not hold, MODE = 0");
        assert_eq!(says(&told, "rule slow"), "holds");
        assert_eq!(
            told.changes,
            [
                "rule fast would have to hold, if it allows more; now does not hold: MODE == 1 does not hold, MODE = 0",
                "rule slow must no longer hold, or allow more"
            ]
        );
    }

    #[test]
    fn a_full_car_leaves_its_least_current_to_the_others_and_is_told_so() {
        let mut bench = Bench::new("");
        for evse in ["left", "right"] {
            bench.charges(evse, ConnectorStatus::Charging);
        }
        bench.explained(30);
        let status = ConnectorStatus::SuspendedEv;
        bench.tell("left", EvseEvent::Status { status, error: String::new() });
        let told = bench.explained(70);
        assert_eq!(told.granted, Milliamps::amps(6), "there is room for both: {told:#?}");
        assert_eq!(says(&told, "vehicle"), "it takes nothing at present; it may begin again");
        // Now there is room for one.
        bench.limit(4_900);
        let told = bench.explained(20);
        assert_eq!(told.granted, Milliamps::ZERO);
        assert!(told.because.starts_with("takes nothing at present, the others come first"), "{told:#?}");
        assert!(bench.site.evses[1].leash.newest().unwrap().limit >= Milliamps::amps(6));
        // There is room for two, which the other one needs; half an hour later it is asked all the same.
        bench.limit(10_000);
        assert_eq!(bench.explained(1_700).granted, Milliamps::ZERO);
        let told = bench.explained(100);
        assert_eq!(told.granted, Milliamps::amps(6), "{told:#?}");
    }
}
