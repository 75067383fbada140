//! Digital inputs and outputs behind one trait: real ([`gpio`]), simulated ([`sim`]), and broken at will in tests (`chaos`).
//!
//! In: a [`Line`] of the configuration. Out: an input whose every possible change is reported with its time, or an
//! output that is de-energised from its first moment. Invariant: an output that is dropped or fails is never left
//! energised by this code; a line that cannot be had says why, and by whom it is held.

#[cfg(test)]
pub mod chaos;
pub mod gpio;
pub mod sim;

use std::{future::Future, path::PathBuf, time::Duration};

use super::remote::{self, Switches};
use crate::{clock::Clock, config::Line, time::Mono};

/// Why a line cannot be used just now. Every one is worth another try later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Somebody else holds it.
    #[error("line {offset} of {} is in use by {by}; end that program, or configure another line", chip.display())]
    Busy {
        /// The chip.
        chip: PathBuf,
        /// The line on it.
        offset: u32,
        /// Its present holder, as the kernel tells.
        by: String,
    },
    /// The chip or the line is not there.
    #[error("{what} is not there: {why}")]
    Absent {
        /// What was looked for.
        what: String,
        /// The system's words.
        why: String,
    },
    /// It is there, but does not do as asked.
    #[error("{what}: {why}")]
    Failed {
        /// What was tried on which line.
        what: String,
        /// The system's words.
        why: String,
    },
}

/// A level at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Current flows.
    pub closed: bool,
    /// When it was so: the kernel's time of the edge where there is one, else the time of looking.
    pub at: Mono,
}

/// A digital input.
pub trait DigitalInput: Send {
    /// The next look at the line: at once the first time, then whenever the level may have changed. Cancel safe.
    /// After an error the input is dropped and opened anew.
    fn next(&mut self) -> impl Future<Output = Result<Sample, LineError>> + Send;
}

/// A digital output. De-energised when it is opened.
pub trait DigitalOutput: Send {
    /// Energises or releases.
    fn set(&mut self, energised: bool) -> Result<(), LineError>;

    /// What the line really is, where that can be read.
    fn read_back(&mut self) -> Result<Option<bool>, LineError>;

    /// Whether the last order was carried out or failed; one that travels is neither yet.
    fn settled(&self) -> bool {
        true
    }
}

/// Where lines come from.
pub trait Board: Send {
    /// Its inputs.
    type Input: DigitalInput;
    /// Its outputs.
    type Output: DigitalOutput;

    /// Opens an input. `bounce` is what the hardware side may filter away by itself.
    fn input(&mut self, line: &Line, bounce: Duration, clock: Clock) -> Result<Self::Input, LineError>;

    /// Opens an output, de-energised.
    fn output(&mut self, line: &Line) -> Result<Self::Output, LineError>;
}

/// The board of this machine: GPIO chips, switches in the network, and files for simulated sites.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// Switches in the network.
    pub switches: Switches,
}

/// An input of [`System`].
#[derive(Debug)]
pub enum SystemInput {
    /// A line of a GPIO chip.
    Gpio(gpio::Input),
    /// A file.
    File(sim::Input),
}

/// An output of [`System`].
#[derive(Debug)]
pub enum SystemOutput {
    /// A line of a GPIO chip.
    Gpio(gpio::Output),
    /// A file.
    File(sim::Output),
    /// A switch in the network.
    Switch(remote::Output),
}

impl Board for System {
    type Input = SystemInput;
    type Output = SystemOutput;

    fn input(&mut self, line: &Line, bounce: Duration, clock: Clock) -> Result<SystemInput, LineError> {
        Ok(match line {
            Line::Gpio { chip, offset } => {
                SystemInput::Gpio(gpio::Input::open(chip, *offset, bounce, clock)?)
            }
            Line::File(path) => SystemInput::File(sim::Input::open(path, clock)),
            Line::Switch { relay, .. } => {
                let what = format!("the switch of relay {relay}");
                return Err(LineError::Absent { what, why: "it is an output".to_owned() });
            }
        })
    }

    fn output(&mut self, line: &Line) -> Result<SystemOutput, LineError> {
        Ok(match line {
            Line::Gpio { chip, offset } => SystemOutput::Gpio(gpio::Output::open(chip, *offset)?),
            Line::File(path) => SystemOutput::File(sim::Output::open(path)?),
            Line::Switch { .. } => SystemOutput::Switch(self.switches.open(line)?),
        })
    }
}

impl DigitalInput for SystemInput {
    async fn next(&mut self) -> Result<Sample, LineError> {
        match self {
            Self::Gpio(input) => input.next().await,
            Self::File(input) => input.next().await,
        }
    }
}

impl DigitalOutput for SystemOutput {
    fn set(&mut self, energised: bool) -> Result<(), LineError> {
        match self {
            Self::Gpio(output) => output.set(energised),
            Self::File(output) => output.set(energised),
            Self::Switch(output) => output.set(energised),
        }
    }

    fn read_back(&mut self) -> Result<Option<bool>, LineError> {
        match self {
            Self::Gpio(output) => output.read_back(),
            Self::File(output) => output.read_back(),
            Self::Switch(output) => output.read_back(),
        }
    }

    fn settled(&self) -> bool {
        match self {
            Self::Gpio(output) => output.settled(),
            Self::File(output) => output.settled(),
            Self::Switch(output) => output.settled(),
        }
    }
}
