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
