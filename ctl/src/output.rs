//! The standard output.
//!
//! Invariant: writing never stops the connection's own work, so that a paused reader (`| less`) does not look like
//! a dead one to the daemon; a reader that went away ends the program quietly.

use std::io::IsTerminal;

use tokio::io::{AsyncWriteExt, Stdout};

use crate::failure::Failure;

#[derive(Debug)]
pub(crate) struct Output {
    stdout: Stdout,
    terminal: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { stdout: tokio::io::stdout(), terminal: std::io::stdout().is_terminal() }
    }

    /// Whether a person looks at it.
    pub(crate) const fn terminal(&self) -> bool {
        self.terminal
    }

    /// Text as it is.
    pub(crate) async fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(text).await?;
        // Without this the text may still be on its way when the program ends.
        self.stdout.flush().await?;
        Ok(())
    }

    /// Text with a line end.
    pub(crate) async fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(format!("{}\n", text.trim_end_matches('\n')).as_bytes()).await
    }
}
