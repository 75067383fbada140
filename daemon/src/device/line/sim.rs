//! Lines as files, for simulated sites: a file holds `0` or `1`.
//!
//! In: what a person or a test writes. Out: samples every [`POLL`]. Invariant: an output file is replaced as a
//! whole, so that nobody reads it half-written; an input file that is being replaced is not mistaken for a fault.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{DigitalInput, DigitalOutput, LineError, Sample};
use crate::clock::Clock;

/// Time between two looks at an input file.
const POLL: Duration = Duration::from_millis(20);

/// How many looks in a row may find the file empty: `echo 1 > file` empties it first.
const EMPTY_LOOKS: u32 = 5;

/// An input file.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    clock: Clock,
    looked: bool,
}

impl Input {
    /// Does not look yet.
    #[must_use]
    pub fn open(path: &Path, clock: Clock) -> Self {
        Self { path: path.to_owned(), clock, looked: false }
    }
}

impl DigitalInput for Input {
    async fn next(&mut self) -> Result<Sample, LineError> {
        if self.looked {
            tokio::time::sleep(POLL).await;
        }
        self.looked = true;
        for _ in 1..EMPTY_LOOKS {
            if let Some(closed) = look(&self.path)? {
                return Ok(Sample { closed, at: self.clock.now().mono });
            }
            tokio::time::sleep(POLL).await;
        }
        match look(&self.path)? {
            Some(closed) => Ok(Sample { closed, at: self.clock.now().mono }),
            None => Err(LineError::Failed {
                what: self.path.display().to_string(),
                why: "is empty; write 0 or 1".into(),
            }),
        }
    }
}

/// The level in a file; nothing while it is empty.
fn look(path: &Path) -> Result<Option<bool>, LineError> {
    let text = fs::read_to_string(path).map_err(|e| failed("read", path, &e))?;
    match text.trim() {
        "0" => Ok(Some(false)),
        "1" => Ok(Some(true)),
        "" => Ok(None),
        other => {
            let shown: String = other.chars().take(20).collect();
            let why = format!("holds {shown:?}; write 0 or 1");
            Err(LineError::Failed { what: path.display().to_string(), why })
        }
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> LineError {
    if error.kind() == io::ErrorKind::NotFound {
        LineError::Absent { what: path.display().to_string(), why: error.to_string() }
    } else {
        LineError::Failed { what: format!("{} cannot be {verb}", path.display()), why: error.to_string() }
    }
}

/// An output file.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Writes `0`.
    pub fn open(path: &Path) -> Result<Self, LineError> {
        let mut output = Self { path: path.to_owned() };
        output.set(false)?;
        Ok(output)
    }
}

impl DigitalOutput for Output {
    fn set(&mut self, energised: bool) -> Result<(), LineError> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        fs::write(&new, if energised { "1\n" } else { "0\n" })
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(|e| failed("written", &self.path, &e))
    }

    fn read_back(&mut self) -> Result<Option<bool>, LineError> {
        look(&self.path)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A GPIO line falls back when its holder goes; a file must be told. What fails here was reported before.
        let _ = self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_input_file_is_read_as_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w4");
        fs::write(&path, "0\n").unwrap();
        let mut input = Input::open(&path, Clock::system());
        let first = input.next().await.unwrap();
        assert!(!first.closed);
        fs::write(&path, "1").unwrap();
        let second = input.next().await.unwrap();
        assert!(second.closed && second.at >= first.at + POLL);
    }

    #[tokio::test]
    async fn nonsense_in_an_input_file_is_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w4");
        let clock = Clock::system();
        let error = Input::open(&path, clock).next().await.unwrap_err();
        assert!(matches!(error, LineError::Absent { .. }), "{error}");
        for (text, says) in [("on", "w4: holds \"on\"; write 0 or 1"), ("", "w4: is empty; write 0 or 1")] {
            fs::write(&path, text).unwrap();
            let error = Input::open(&path, clock).next().await.unwrap_err().to_string();
            assert!(error.ends_with(says), "{error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = Input::open(&path, clock).next().await.unwrap_err().to_string();
        assert!(error.contains("w4 cannot be read: "), "{error}");
    }

    #[test]
    fn an_output_file_is_low_when_opened_and_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay");
        fs::write(&path, "1").unwrap();
        let mut output = Output::open(&path).unwrap();
        assert_eq!(output.read_back(), Ok(Some(false)));
        output.set(true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(output.read_back(), Ok(Some(true)));
        drop(output);
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n");

        let error = Output::open(&dir.path().join("gone/relay")).unwrap_err();
        assert!(matches!(error, LineError::Absent { .. }), "{error}");
    }
}
