//! The backend behind the uplink: TLS inside the channel, if its URL says `wss`.

use std::{future::Future, pin::Pin, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    BoxedIo, Channel, Dial, DialError, Renewal, SetupError, Target, Uplink,
    step::{Cause, Failure, Step},
    target::Opened,
    tcp,
};
use crate::{
    config,
    identity::{Identity, IdentityError},
    tls::{self, Profile},
};

/// Opens streams to one backend.
#[derive(Debug, Clone)]
pub struct BackendDialer {
    pub(super) target: Target,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl BackendDialer {
    /// Reads the files that the configuration names. Opens no connection.
    pub fn new(uplink: &Uplink, backend: &config::Backend) -> Result<Self, SetupError> {
        let wrong = |field, problem| SetupError { field, problem };
        let tls = match &backend.tls {
            None => None,
            Some(files) => {
                let roots = tls::anchors(&files.ca).map_err(|problem| wrong("backend.ca", problem))?;
                let identity = match &files.identity {
                    None => None,
                    Some((certificate, key)) => Some(
                        Identity::load(certificate, key, Profile::Inner).map_err(|error| match error {
                            IdentityError::Certificate(problem) => wrong("backend.certificate", problem),
                            IdentityError::Key(problem) => wrong("backend.key", problem),
                        })?,
                    ),
                };
                let name =
                    tls::server_name(&backend.host).map_err(|problem| wrong("backend.url", problem))?;
                let client = tls::backend_client(roots, identity.as_ref(), uplink.clock())
                    .map_err(|problem| wrong("backend.ca", problem))?;
                Some((Arc::new(client), name))
            }
        };
        let target = match &backend.target {
            Some(name) => uplink.target(name).ok_or_else(|| {
                wrong("backend.target", format!("there is no target {name:?} under [[uplink.target]]"))
            }),
            None => uplink
                .target_at(&backend.host, backend.port)
                .map_err(|error| wrong("backend.url", error.to_string())),
        }?;
        let (host, port, path) = (backend.host.clone(), backend.port, backend.path.clone());
        Ok(Self { target, host, port, path, tls })
    }

    /// Its target.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// TLS inside the channel; without any the stream itself, and `None`.
    pub(super) async fn inner(&self, io: BoxedIo) -> Result<(BoxedIo, Option<String>), Failure> {
        let Some((config, name)) = &self.tls else {
            return Ok((io, None));
        };
        let connector = TlsConnector::from(config.clone());
        let time = self.target.uplink.step_timeout();
        let step = format!("TLS with the backend {}", tcp::authority(&self.host, self.port));
        match timeout(time, connector.connect(name.clone(), io)).await {
            // A refusal of our certificate in TLS 1.3 comes as the first thing that is read: the channel decides.
            Ok(Ok(stream)) => {
                let session = tls::session(stream.get_ref().1);
                Ok((Box::new(stream), Some(session)))
            }
            Ok(Err(error)) => Err(Failure::of_stream(Step::Target, &step, &error)),
            Err(_) => {
                let text = format!("{step}: no handshake within {time:?}");
                Err(Failure::new(Step::Target, Cause::Silent, text))
            }
        }
    }

    async fn stream(&self) -> Result<BoxedIo, DialError> {
        match self.target.open().await? {
            Opened::Ours(io, attempt) => match self.inner(io).await {
                Ok((io, _)) => {
                    let now = self.target.uplink.clock().now().mono;
                    Ok(Box::new(Channel::new(io, attempt, now)))
                }
                Err(failure) => Err(attempt.fail(failure)),
            },
            Opened::Theirs(accepted) => match self.inner(Box::new(accepted.channel)).await {
                Ok((io, _)) => Ok(io),
                Err(failure) => Err(self.target.uplink.0.ledger.missed(self.target.name(), failure)),
            },
        }
    }
}

impl Dial for BackendDialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>> {
        Box::pin(self.stream())
    }

    fn ready(&self) -> bool {
        self.target.ready()
    }

    fn renewal(&self) -> Option<Renewal> {
        self.target.renewal()
    }
}
