//! One device on a bus, asked as its definition says.
//!
//! In: a definition, a bus, a unit. Out: registers of its blocks, answers to single requests. Invariant: the rests that
//! the device needs are kept; registers that are counted from a SunSpec model are asked for only after it was found.

use std::{sync::Arc, time::Duration};

use super::{
    Definition,
    bus::{Ask, Bus, BusError, Class, Request},
    definition::{Block, Function, SunSpec},
};

/// "SunS" (SunSpec Device Information Model Specification, §2).
const SUNS: [u16; 2] = [0x5375, 0x6E53];
/// Ends a map.
const END: u16 = 0xFFFF;
/// Most models that a map is walked through.
const MOST_MODELS: usize = 64;

/// Why a device was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The bus has no answer.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No SunSpec map where it could begin.
    #[error("no SunSpec map begins at any of {0:?}")]
    NoMap(Vec<u16>),
    /// The map has other models.
    #[error("the SunSpec map from {base} has no model {model}; it has {found:?}")]
    NoModel {
        /// Where the map begins.
        base: u16,
        /// What was looked for.
        model: u16,
        /// What is there.
        found: Vec<u16>,
    },
}

impl AskError {
    /// Whether the connection must be made anew first.
    #[must_use]
    pub const fn lost(&self) -> bool {
        match self {
            Self::Bus(error) => error.lost(),
            Self::NoMap(_) | Self::NoModel { .. } => true,
        }
    }

    /// What stays the same while the values in the message change.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Bus(error) => error.cause(),
            Self::NoMap(_) => "no SunSpec map".to_owned(),
            Self::NoModel { .. } => "no SunSpec model".to_owned(),
        }
    }
}

/// A device.
#[derive(Debug, Clone)]
pub struct Reader {
    definition: Arc<Definition>,
    bus: Bus,
    unit: u8,
    patience: Duration,
    /// Where its SunSpec model begins.
    model: Option<u16>,
}

impl Reader {
    /// `patience`: how long a request may wait for others on the bus.
    #[must_use]
    pub fn new(definition: Arc<Definition>, bus: Bus, unit: Option<u8>, patience: Duration) -> Self {
        let unit = unit.or(definition.unit).unwrap_or(1);
        Self { definition, bus, unit, patience, model: None }
    }

    /// What it is.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// One request.
    pub async fn ask(&self, request: Request, class: Class) -> Result<Vec<u16>, BusError> {
        let d = &self.definition;
        let rest = if request.writes() { d.write_delay } else { d.frame_delay };
        let ask = Ask { unit: self.unit, request, class, rest, patience: self.patience };
        match self.bus.call(ask.clone()).await {
            // It slept; now it is awake.
            Err(BusError::Timeout { .. }) if d.wake => self.bus.call(ask).await,
            outcome => outcome,
        }
    }

    /// The registers of all blocks, in the definition's order.
    pub async fn blocks(&mut self) -> Result<Vec<Vec<u16>>, AskError> {
        let first = self.first().await?;
        let mut registers = Vec::with_capacity(self.definition.blocks.len());
        for block in &self.definition.blocks {
            let outcome = self.ask(self.request(block, first), Class::Reading).await;
            if outcome.is_err() {
                // Whatever answers next may be another device.
                self.model = None;
            }
            registers.push(outcome?);
        }
        Ok(registers)
    }

    /// The request of a block; its registers count from `first`.
    #[must_use]
    pub const fn request(&self, block: &Block, first: u16) -> Request {
        Request::Read {
            function: block.function,
            start: first.saturating_add(block.start),
            count: block.count,
        }
    }

    /// What the definition's registers are counted from: 0, or the header of the SunSpec model.
    pub async fn first(&mut self) -> Result<u16, AskError> {
        let definition = Arc::clone(&self.definition);
        let Some(sunspec) = &definition.sunspec else { return Ok(0) };
        if let Some(model) = self.model {
            return Ok(model);
        }
        let model = self.find(sunspec).await?;
        self.model = Some(model);
        Ok(model)
    }

    async fn find(&self, sunspec: &SunSpec) -> Result<u16, AskError> {
        let read = |start, count| {
            self.ask(Request::Read { function: Function::Holding, start, count }, Class::Reading)
        };
        for base in sunspec.bases.iter().copied() {
            match read(base, 2).await {
                Ok(mark) if mark == SUNS => {}
                Ok(_) | Err(BusError::Exception { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut found = Vec::new();
            let mut at = base.saturating_add(2);
            for _ in 0..MOST_MODELS {
                let header = read(at, 2).await?;
                let [id, length] = header[..] else { break };
                if id == sunspec.model {
                    return Ok(at);
                }
                if id == END {
                    break;
                }
                found.push(id);
                let Some(next) = length.checked_add(2).and_then(|l| at.checked_add(l)) else { break };
                at = next;
            }
            return Err(AskError::NoModel { base, model: sunspec.model, found });
        }
        Err(AskError::NoMap(sunspec.bases.clone()))
    }
}
