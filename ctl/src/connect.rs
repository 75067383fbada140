//! The way to the daemon.

use std::{io, path::Path};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::failure::{Failure, innermost};

const CHECK: &str =
    "check that ladewartd runs (systemctl status ladewartd), or name its socket with --socket";

/// Connects once; a connection that breaks later is not made anew, because a command says what is now.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::other("the daemon closed the connection"));
        async move { stream }
    });
    Endpoint::from_static("http://ladewartd").connect_with_connector(once).await.map_err(|error| {
        let why = innermost(&error);
        Failure::Unreachable(format!("no daemon answers at {}: {why}; {CHECK}", socket.display()))
    })
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Denied(format!(
            "you may not open {path}; become a member of the group that owns it, or ask an administrator"
        )),
        io::ErrorKind::NotFound => {
            Failure::Unreachable(format!("no daemon answers at {path}: there is no such file; {CHECK}"))
        }
        io::ErrorKind::ConnectionRefused => Failure::Unreachable(format!(
            "no daemon answers at {path}: nobody listens there any more; {CHECK}"
        )),
        _ => Failure::Unreachable(format!("no daemon answers at {path}: {error}; {CHECK}")),
    }
}
