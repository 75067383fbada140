//! `ladewartctl completions` and `ladewartctl man`: what packages install beside the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure, session::Session};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // In memory first: the generator panics on a reader that went away.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ladewartctl", &mut script);
        session.output.write(&script).await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Writes a page for every command into this directory, instead of the main page to the standard output.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        if let Some(dir) = self.dir {
            let written = clap_mangen::generate_to(Cli::command(), &dir);
            return written
                .map_err(|error| Failure::Wrong(format!("{} cannot be written: {error}", dir.display())));
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        session.output.write(&page).await
    }
}
