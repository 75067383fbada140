//! Updates of the device.

use ladewart_proto::v1::{self, installation};
use prost_types::Timestamp;
use tonic::Status;

use crate::update::{Installation, Slot, State, UpdateError};

/// How an installation goes.
pub(in crate::api) fn installation(now: &Installation) -> v1::Installation {
    let state = match now.state {
        State::None => installation::State::None,
        State::Running => installation::State::Running,
        State::Installed => installation::State::Installed,
        State::Failed => installation::State::Failed,
    };
    v1::Installation {
        state: state.into(),
        percent: now.percent.into(),
        message: now.message.clone(),
        version: now.version.clone(),
    }
}

/// A part of the disk.
pub(in crate::api) fn slot(slot: Slot) -> v1::Slot {
    let installed = slot.installed.parse::<jiff::Timestamp>().ok();
    v1::Slot {
        name: slot.name,
        boot_name: slot.boot_name,
        running: slot.running,
        next: slot.next,
        bootable: slot.bootable,
        version: slot.version,
        installed: installed.map(|at| Timestamp { seconds: at.as_second(), nanos: 0 }),
    }
}

/// What it means to the caller that an update does not go on.
pub(in crate::api) fn update_error(error: &UpdateError) -> Status {
    let text = error.to_string();
    match error {
        UpdateError::Size { .. } => Status::invalid_argument(format!("begin.size: {text}")),
        UpdateError::Busy | UpdateError::OnTrial | UpdateError::Refused(_) => {
            Status::failed_precondition(text)
        }
        UpdateError::NoRoom { .. } => Status::resource_exhausted(text),
        UpdateError::Longer(_) | UpdateError::Shorter { .. } | UpdateError::Digest => Status::data_loss(text),
        UpdateError::Spool(..) | UpdateError::Absent(_) | UpdateError::NotRecorded(_) => {
            Status::unavailable(text)
        }
    }
}
