//! Names of things. Cheap to clone, compared by text; a node cannot be passed where an EVSE is meant.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most characters of a name: OCPP's `CiString48` (OCPP 2.0.1 Part 4 §3.1.1) is the narrowest bound in use.
pub const MAX_NAME: usize = 48;

fn check(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '|' | '@' | '=');
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
        return Err(format!("{text:?} is not a name; use 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - * | @ ="));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name that is known to be well-formed, e.g. one from the configuration.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                check(&text).map_err(de::Error::custom)?;
                Ok(Self::new(&text))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name!(
    /// A charging point of the site, as the site calls it.
    EvseId
);
name!(
    /// The identity of an OCPP charge point: the last segment of its WebSocket URL, the same on both sides.
    Identity
);
name!(
    /// A point of the electrical tree.
    NodeId
);
name!(
    /// A controllable device that is no EVSE.
    DeviceId
);
name!(
    /// A meter.
    MeterId
);
name!(
    /// A digital input.
    ContactId
);
name!(
    /// A digital output.
    RelayId
);
name!(
    /// A grid limit.
    LimitId
);
