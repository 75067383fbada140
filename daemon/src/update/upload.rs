//! A bundle on its way in: bytes → a file of the announced length and digest, or nothing.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::UpdateError;

/// The bundle's name in the spool directory.
pub(super) const NAME: &str = "bundle.raucb";
/// What must stay free beside the bundle: the evidence is on the same file system.
const RESERVE: u64 = 8 << 20;

/// What was announced of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// A bundle that is being received. Dropped, it leaves no file.
#[derive(Debug)]
pub struct Upload {
    file: File,
    path: Gone,
    announced: Announced,
    received: u64,
    digest: Sha256,
    turn: OwnedSemaphorePermit,
}

/// A bundle that is there, whole. Dropped, it is removed and the next may come.
#[derive(Debug)]
pub struct Bundle {
    path: Gone,
    pub(super) announced: Announced,
    _turn: OwnedSemaphorePermit,
}

/// A file that goes with its owner.
#[derive(Debug)]
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Bundle {
    pub(super) fn path(&self) -> &Path {
        &self.path.0
    }
}

impl Upload {
    pub(super) fn begin(
        spool: &Path,
        announced: Announced,
        most: u64,
        turn: OwnedSemaphorePermit,
    ) -> Result<Self, UpdateError> {
        if announced.size == 0 || announced.size > most {
            return Err(UpdateError::Size { size: announced.size, most });
        }
        let wrong = |error| UpdateError::Spool(spool.to_owned(), error);
        fs::create_dir_all(spool).map_err(wrong)?;
        let room = nix::sys::statvfs::statvfs(spool).map_err(|error| wrong(error.into()))?;
        #[allow(clippy::useless_conversion, reason = "32 bits wide on 32-bit ARM")]
        let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
        if free < announced.size.saturating_add(RESERVE) {
            return Err(UpdateError::NoRoom { need: announced.size.saturating_add(RESERVE), free });
        }
        let path = spool.join(NAME);
        // A rest of a power cut.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o640).open(&path).map_err(wrong)?;
        let path = Gone(path);
        Ok(Self { file, path, announced, received: 0, digest: Sha256::new(), turn })
    }

    /// The next bytes. Blocks for the disk.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), UpdateError> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.announced.size {
            return Err(UpdateError::Longer(self.announced.size));
        }
        self.digest.update(chunk);
        self.file.write_all(chunk).map_err(|error| UpdateError::Spool(self.path.0.clone(), error))
    }

    /// All bytes are there: checks and syncs them. Blocks for the disk.
    pub fn finish(self) -> Result<Bundle, UpdateError> {
        if self.received != self.announced.size {
            return Err(UpdateError::Shorter { size: self.announced.size, received: self.received });
        }
        if self.digest.finalize()[..] != self.announced.sha256 {
            return Err(UpdateError::Digest);
        }
        self.file.sync_all().map_err(|error| UpdateError::Spool(self.path.0.clone(), error))?;
        Ok(Bundle { path: self.path, announced: self.announced, _turn: self.turn })
    }
}
