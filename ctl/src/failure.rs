//! What went wrong, by what the caller can do about it. Each kind has its exit code.

use std::{error::Error, io, io::Write, process::ExitCode};

use tonic::{Code, Status};

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the daemon refused, or something is wrong (a journal that is not intact)
  2  the command line is wrong
  3  the daemon cannot be reached
  4  permission denied";

/// Why a command ended early. The text is one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon refused, or found something wrong.
    #[error("{0}")]
    Wrong(String),
    /// The command line does not make sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// Not for this user.
    #[error("{0}")]
    Denied(String),
    /// The reader of our output has had enough.
    #[error("nobody reads the output")]
    NoReader,
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::NoReader => 0,
            Self::Wrong(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Denied(_) => 4,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = crate::words::clean(status.message());
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            // What the daemon says itself has no source; a broken connection has one.
            _ if status.source().is_some() => {
                Self::Unreachable(format!("the connection to the daemon broke: {}", innermost(&status)))
            }
            Code::Unimplemented => Self::Wrong(format!(
                "the daemon does not know this command, it may be of another version: {text}"
            )),
            _ if text.is_empty() => Self::Wrong(format!("the daemon says: {}", status.code())),
            _ => Self::Wrong(text),
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing the output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NoReader,
            _ => Self::Wrong(format!("the output cannot be written: {error}")),
        }
    }
}

/// The cause at the end of the chain: the others only say that there was one.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Says the sentence, gives the code.
pub(crate) fn exit(ended: Result<(), Failure>) -> ExitCode {
    let Err(failure) = ended else {
        return ExitCode::SUCCESS;
    };
    if !matches!(failure, Failure::NoReader) {
        // Without a standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "ladewartctl: {failure}");
    }
    ExitCode::from(failure.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_has_its_exit_code() {
        let code = |status: Status| Failure::from(status).code();
        assert_eq!(code(Status::permission_denied("user 7 has no role here")), 4);
        assert_eq!(code(Status::invalid_argument("watts: -1 is negative")), 1);
        assert_eq!(code(Status::unavailable("in force, but not recorded")), 1, "the daemon itself said so");
        assert_eq!(code(Status::unimplemented("x")), 1);
        let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(code(broken), 3);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 1);
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let failure = Failure::from(Status::invalid_argument("id: \u{1b}[2Jx"));
        assert!(!failure.to_string().contains('\u{1b}'), "{failure}");
    }
}
