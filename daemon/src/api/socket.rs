//! Makes the socket file.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::Error;

/// Owner and group may connect; the group is the one of the directory's set-group-id bit or of the process.
const MODE: u32 = 0o660;

/// Opens the socket at `path` with mode 0660. Replaces the file of a process that is gone; a process that still
/// answers there is an error. Needs the runtime.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) if answers(path).map_err(failed)? => return Err(Error::InUse(path.to_owned())),
        Ok(_) => tracing::info!(socket = %path.display(), "replacing the socket of a process that is gone"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // The socket gets its mode under another name, so that nobody reaches it before; the rename replaces a stale
    // one in the same step.
    let fresh = path.with_file_name(format!(".{}", std::process::id()));
    let made = (|| {
        if fresh.symlink_metadata().is_ok() {
            fs::remove_file(&fresh)?;
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))?;
        fs::rename(&fresh, path)?;
        Ok(listener)
    })();
    made.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        failed(error)
    })
}

/// Whether a process listens there. Never waits: a full queue is an answer, too.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _listener = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let live = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(Error::InUse(_))));
        drop(live);
        assert!(path.exists(), "the file of the dead one is still there");
        let _listener = bind(&path).unwrap();
        tokio::net::UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_live_socket_with_a_full_queue_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(matches!(bind(&path), Err(Error::InUse(_))));
    }

    #[tokio::test]
    async fn other_files_stay_and_missing_directories_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(&file), Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let error = bind(&dir.path().join("missing/s.sock")).unwrap_err();
        assert!(error.to_string().contains("missing/s.sock"), "{error}");
    }
}
