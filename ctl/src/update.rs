//! `ladewartctl update`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use ladewart_proto::v1::{
    self, InstallUpdateRequest,
    install_update_request::{Begin, Part},
    installation::State,
    update_service_client::UpdateServiceClient,
};
use sha2::{Digest, Sha256};

use crate::{
    failure::Failure,
    json,
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Update {
    /// The slots of the disk, which one runs, and how the last installation went.
    Status,
    /// Installs a bundle into the slot that does not run.
    Install(Install),
    /// Keeps the running version: it is no longer on trial.
    Confirm,
    /// Starts the other slot next.
    Rollback {
        /// Start it now.
        #[arg(long)]
        restart: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The bundle (RAUC), or - for the standard input.
    bundle: PathBuf,
    /// Start the new version as soon as it is written.
    #[arg(long)]
    restart: bool,
}

/// Bytes of a bundle in one message.
const PART: usize = 256 << 10;
/// Longest bundle that is read from the standard input, which must be held to be measured.
const LONGEST: u64 = 256 << 20;

/// A bundle with what is announced of it.
struct Bundle {
    bytes: Box<dyn Read + Send>,
    size: u64,
    sha256: [u8; 32],
}

fn open(path: &Path) -> Result<Bundle, Failure> {
    let wrong = |error: io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    if path.as_os_str() == "-" {
        let mut held = Vec::new();
        io::stdin().lock().take(LONGEST + 1).read_to_end(&mut held).map_err(wrong)?;
        if held.len() as u64 > LONGEST {
            return Err(Failure::Usage("the standard input holds more than 256 MiB; give a file".to_owned()));
        }
        let (size, sha256) = (held.len() as u64, Sha256::digest(&held).into());
        return Ok(Bundle { bytes: Box::new(io::Cursor::new(held)), size, sha256 });
    }
    let mut file = File::open(path).map_err(wrong)?;
    let (mut digest, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; PART];
    loop {
        let read = file.read(&mut buffer).map_err(wrong)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        digest.update(buffer.get(..read).unwrap_or_default());
    }
    let again = File::open(path).map_err(wrong)?;
    Ok(Bundle { bytes: Box::new(again), size, sha256: digest.finalize().into() })
}

/// What is sent: the announcement, then the bytes. A file that cannot be read on ends early, and the daemon says so.
fn requests(bundle: Bundle, restart: bool) -> impl Iterator<Item = InstallUpdateRequest> + Send + 'static {
    let Bundle { mut bytes, size, sha256 } = bundle;
    let begin = Part::Begin(Begin { size, sha256: sha256.to_vec(), restart });
    let chunks = std::iter::from_fn(move || {
        let mut chunk = Vec::with_capacity(PART);
        let read = (&mut bytes).take(PART as u64).read_to_end(&mut chunk);
        (read.is_ok() && !chunk.is_empty()).then_some(Part::Chunk(chunk))
    });
    std::iter::once(begin).chain(chunks).map(|part| InstallUpdateRequest { part: Some(part) })
}

impl Update {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // Before the connection, so that a wrong path is told even without a daemon.
        let bundle = match &self {
            Self::Install(install) => Some(open(&install.bundle)?),
            _ => None,
        };
        let mut client = UpdateServiceClient::new(session.channel().await?);
        match self {
            Self::Status => {
                let answer = session.call(client.get_update_status(v1::GetUpdateStatusRequest {})).await?;
                session.show("GetUpdateStatusResponse", &answer, |style| status(style, &answer)).await
            }
            Self::Install(Install { restart, .. }) => {
                let Some(bundle) = bundle else { return Ok(()) };
                let mut answers =
                    client.install_update(tokio_stream::iter(requests(bundle, restart))).await?.into_inner();
                let mut told = String::new();
                while let Some(answer) = answers.message().await? {
                    let line = match answer.installation.as_ref() {
                        _ if session.json_or(false) => json::line("InstallUpdateResponse", &answer)?,
                        Some(now) => progress(now),
                        None => continue,
                    };
                    if line != told {
                        session.output.line(&line).await?;
                        told = line;
                    }
                }
                Ok(())
            }
            Self::Confirm => {
                let answer = session.call(client.confirm_update(v1::ConfirmUpdateRequest {})).await?;
                let sentence = format!("{} is kept.", words::text(&answer.slot));
                session.show("ConfirmUpdateResponse", &answer, |_| sentence).await
            }
            Self::Rollback { restart } => {
                let request = v1::RollbackUpdateRequest { restart };
                let answer = session.call(client.rollback_update(request)).await?;
                let when = if restart { "now" } else { "next" };
                let sentence = format!("{} is started {when}.", words::text(&answer.slot));
                session.show("RollbackUpdateResponse", &answer, |_| sentence).await
            }
        }
    }
}

fn progress(now: &v1::Installation) -> String {
    let version =
        if now.version.is_empty() { String::new() } else { format!("{}: ", words::text(&now.version)) };
    match now.state() {
        State::Running => format!("{:3} %  {version}{}", now.percent, words::text(&now.message)),
        _ => format!("{version}{}", words::text(&now.message)),
    }
}

fn status(style: &Style, answer: &v1::GetUpdateStatusResponse) -> String {
    let yes = |holds: bool| if holds { "yes" } else { NOTHING }.to_owned();
    let row = |slot: &v1::Slot| {
        vec![
            words::text(&slot.name),
            yes(slot.running),
            yes(slot.next),
            yes(slot.bootable),
            words::text(&slot.version),
            slot.installed.as_ref().map_or_else(|| NOTHING.to_owned(), |at| style.time(Some(at))),
        ]
    };
    let headings = ["SLOT", "RUNS", "NEXT", "BOOTABLE", "VERSION", "INSTALLED"];
    let mut text = format!("Bundles are to be for {}.\n", words::text(&answer.compatible));
    text += &table(style, &headings, answer.slots.iter().map(row).collect());
    if !answer.confirmed {
        text += "\nThe running system is on trial.";
    }
    if let Some(last) = &answer.installation
        && !matches!(last.state(), State::None | State::Unspecified)
    {
        text += "\nLast installation: ";
        text += &progress(last);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_announced_and_sent_whole() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let bundle =
            Bundle { bytes: Box::new(io::Cursor::new(bytes.clone())), size: 600_000, sha256: [7; 32] };
        let mut sent = requests(bundle, true).map(|request| request.part.unwrap());
        let begin = Part::Begin(Begin { size: 600_000, sha256: vec![7; 32], restart: true });
        assert_eq!(sent.next(), Some(begin));
        let mut whole = Vec::new();
        for part in sent {
            let Part::Chunk(chunk) = part else { panic!("{part:?}") };
            assert!(chunk.len() <= PART);
            whole.extend(chunk);
        }
        assert_eq!(whole, bytes);
    }

    #[test]
    fn slots_and_the_last_installation() {
        let answer = v1::GetUpdateStatusResponse {
            compatible: "ladewart-qemu-arm64".into(),
            slots: vec![
                v1::Slot {
                    name: "rootfs.0".into(),
                    boot_name: "A".into(),
                    running: true,
                    bootable: true,
                    ..Default::default()
                },
                v1::Slot {
                    name: "rootfs.1".into(),
                    boot_name: "B".into(),
                    next: true,
                    bootable: true,
                    version: "0.2.0".into(),
                    installed: Style::ago(3600),
                    ..Default::default()
                },
            ],
            confirmed: false,
            installation: Some(v1::Installation {
                state: State::Failed.into(),
                percent: 40,
                message: "signature verification failed".into(),
                version: "0.2.0".into(),
            }),
        };
        insta::assert_snapshot!(status(&Style::fixed(), &answer));
    }
}
