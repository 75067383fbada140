//! What a failure means to the caller.

use tonic::Status;

use crate::{control::CommandError, grid::Refusal, store::StoreError};

/// A field of a request is wrong.
pub(in crate::api) fn invalid(field: &str, problem: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {problem}"))
}

/// The storage failed.
pub(in crate::api) fn storage(error: &StoreError) -> Status {
    coded(error, error.to_string())
}

fn coded(error: &StoreError, text: String) -> Status {
    match error {
        StoreError::Full => Status::resource_exhausted(text),
        StoreError::Unavailable(_) => Status::unavailable(text),
        StoreError::Refused(_) => Status::internal(text),
    }
}

/// A command failed.
pub(in crate::api) fn command(error: CommandError) -> Status {
    let text = error.to_string();
    match error {
        CommandError::Refused(Refusal::Invalid { .. }) => Status::invalid_argument(text),
        CommandError::Refused(Refusal::NotYours { .. }) => Status::permission_denied(text),
        CommandError::Refused(Refusal::Full) => Status::resource_exhausted(text),
        CommandError::NotRecorded(error) => coded(&error, text),
        CommandError::NoSource(_) => Status::failed_precondition(text),
        CommandError::Stopping => Status::unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::ids::LimitId;

    #[test]
    fn every_failure_has_its_code_and_says_what_holds() {
        let not_recorded = |error| command(CommandError::NotRecorded(error));
        let full = not_recorded(StoreError::Full);
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(full.message().starts_with("in force, but not recorded"), "{}", full.message());
        assert_eq!(not_recorded(StoreError::Unavailable("EIO".into())).code(), Code::Unavailable);
        assert_eq!(not_recorded(StoreError::Refused("syntax".into())).code(), Code::Internal);
        assert_eq!(command(CommandError::Stopping).code(), Code::Unavailable);
        let theirs = Refusal::NotYours { id: LimitId::new("l1"), owner: "uid:7".into() };
        assert_eq!(command(theirs.into()).code(), Code::PermissionDenied);
        let wrong = Refusal::Invalid { field: "watts", problem: "too few".into() };
        assert_eq!(command(wrong.into()).code(), Code::InvalidArgument);
    }
}
