//! Power limits from every source, and their life.
//!
//! ```text
//! received → accepted → applied → effective ─→ expired | cleared | superseded
//!     └──────────┴──────────┴────────────────────┘
//! ```

use crate::{
    config::Role,
    ids::{LimitId, NodeId},
    time::Wall,
    units::Watts,
};

/// A command to keep the controllable devices behind a node below a power (EnWG §14a; BNetzA BK6-22-300 Anlage 1
/// no. 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, unique on the site.
    pub id: LimitId,
    /// Who set it, authenticated: `"uid:0"`, `"contact:w4"`.
    pub issuer: String,
    /// In which role.
    pub role: Role,
    /// Limited node.
    pub node: NodeId,
    /// 0 is a limit.
    pub watts: Watts,
    /// In force from.
    pub valid_from: Wall,
    /// In force until; open without.
    pub valid_until: Option<Wall>,
    /// For the record.
    pub reason: String,
}

/// How far a limit got. Ordered as in the life above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Heard; the site reduces already.
    Received,
    /// Journaled and synced.
    Accepted,
    /// Every EVSE concerned confirmed a setpoint that keeps it.
    Applied,
    /// The measured power keeps it.
    Effective,
    /// Over by its own validity.
    Expired,
    /// Ended by command.
    Cleared,
    /// Replaced under the same id.
    Superseded,
}

/// A limit and its life so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The command.
    pub limit: Limit,
    /// The stage.
    pub stage: Stage,
    /// When it was received.
    pub received: Wall,
    /// When it was accepted.
    pub accepted: Option<Wall>,
    /// When it was applied.
    pub applied: Option<Wall>,
    /// When it was found effective.
    pub effective: Option<Wall>,
    /// When it ended.
    pub ended: Option<Wall>,
    /// Power of the controllable devices when found effective.
    pub measured: Option<Watts>,
}
