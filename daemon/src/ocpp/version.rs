//! The versions of OCPP that are spoken, and how each spells what the versions have in common.

use serde::Deserialize;

/// A version of OCPP-J.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
pub enum Version {
    /// 1.6 edition 2 with the Security White Paper's actions.
    #[default]
    #[serde(rename = "1.6")]
    V16,
    /// 2.0.1 edition 3.
    #[serde(rename = "2.0.1")]
    V201,
    /// 2.1 edition 1.
    #[serde(rename = "2.1")]
    V21,
}

impl Version {
    /// Every version, the newest first: the order of preference.
    pub const ALL: [Self; 3] = [Self::V21, Self::V201, Self::V16];

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V16 => "1.6",
            Self::V201 => "2.0.1",
            Self::V21 => "2.1",
        }
    }

    /// The WebSocket subprotocol (OCPP-J 1.6 §3.1.2, 2.0.1 Part 4 §3.1.2).
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::V16 => "ocpp1.6",
            Self::V201 => "ocpp2.0.1",
            Self::V21 => "ocpp2.1",
        }
    }

    /// The version behind a subprotocol; boxes do not agree on its case.
    #[must_use]
    pub fn of(subprotocol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.subprotocol().eq_ignore_ascii_case(subprotocol.trim()))
    }

    /// The version with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }

    /// Whether it is one of the 2.x family, which share their messages as far as we act on them.
    #[must_use]
    pub const fn is_2(self) -> bool {
        !matches!(self, Self::V16)
    }

    /// Whether the message types 5 (CALLRESULTERROR) and 6 (SEND) exist (2.1 Part 4 §4.1.3).
    #[must_use]
    pub const fn has_send(self) -> bool {
        matches!(self, Self::V21)
    }

    /// The code for a frame that cannot be read: 1.6 has it misspelt (1.6-J errata 5.1).
    pub(crate) const fn format_violation(self) -> &'static str {
        match self {
            Self::V16 => "FormationViolation",
            Self::V201 | Self::V21 => "FormatViolation",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols_and_names_lead_back() {
        for version in Version::ALL {
            assert_eq!(Version::of(&version.subprotocol().to_uppercase()), Some(version));
            assert_eq!(Version::named(version.name()), Some(version));
        }
        assert_eq!(Version::of("ocpp2.0"), None);
    }
}
