//! The socket of one appliance: each call on it goes on over the appliance's connection, as it is.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};
use tonic::{Status, body::Body, transport::Channel};
use tower::{Service, ServiceExt};

use crate::failure::innermost;

/// Most local clients of one appliance.
const CLIENTS: usize = 64;

/// A socket file with its server; both end with it.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    _server: JoinSet<()>,
}

impl Socket {
    /// Opens it for this user only. What a process that is gone has left there is replaced. The error is a sentence.
    pub(super) fn open(path: PathBuf, current: watch::Receiver<Channel>) -> Result<Self, String> {
        let made = (|| {
            match fs::symlink_metadata(&path) {
                Ok(there) if !there.file_type().is_socket() => {
                    return Err(io::Error::other("there is something else already"));
                }
                Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                Ok(_) => fs::remove_file(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        })();
        let listener = made.map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, current));
        Ok(Self { path, _server: server })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Without it a client learns at once that the appliance is gone.
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(listener: UnixListener, current: watch::Receiver<Channel>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(client(stream, current.clone()));
                }
                Err(_) => tokio::time::sleep(super::RETRY).await,
            },
        }
    }
}

/// One local client until it goes.
async fn client(stream: UnixStream, current: watch::Receiver<Channel>) {
    let forward = service_fn(move |call: http::Request<Incoming>| {
        // The connection that is the newest when the call is made.
        let channel = current.borrow().clone();
        async move { Ok::<_, Infallible>(pass(channel, call.map(Body::new)).await) }
    });
    // A client that breaks off is its own business.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), forward).await;
}

async fn pass(mut channel: Channel, call: http::Request<Body>) -> http::Response<Body> {
    let answer = match channel.ready().await {
        Ok(ready) => ready.call(call).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| {
        Status::unavailable(format!("the connection to the appliance broke: {}", innermost(&error)))
            .into_http()
    })
}
