//! The backend behind the uplink: TLS inside the channel, if its URL says `wss`.

use std::{future::Future, pin::Pin, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{BoxedIo, Channel, Dial, DialError, SetupError, Uplink, attempt::Failure, tcp};
use crate::{
    config,
    identity::{Identity, IdentityError},
    tls::{self, Fault, Profile},
};

/// Opens streams to one backend.
#[derive(Debug, Clone)]
pub struct BackendDialer {
    uplink: Uplink,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl BackendDialer {
    /// Reads the files that the configuration names. Opens no connection.
    pub fn new(uplink: Uplink, backend: &config::Backend) -> Result<Self, SetupError> {
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
        Ok(Self { uplink, host: backend.host.clone(), port: backend.port, tls })
    }

    async fn stream(&self) -> Result<BoxedIo, DialError> {
        let Some((config, name)) = &self.tls else {
            return Ok(Box::new(self.uplink.connect(&self.host, self.port).await?));
        };
        let (io, attempt) = self.uplink.open(&self.host, self.port).await?;
        let connector = TlsConnector::from(config.clone());
        let time = self.uplink.step_timeout();
        let step = format!("TLS with the backend {}", tcp::authority(&self.host, self.port));
        match timeout(time, connector.connect(name.clone(), io)).await {
            // A refusal of our certificate in TLS 1.3 comes as the first thing that is read: the channel decides.
            Ok(Ok(stream)) => Ok(Box::new(Channel::new(stream, attempt))),
            Ok(Err(error)) => {
                let fault = Fault::new(&error);
                Err(attempt.fail(Failure {
                    text: format!("{step}: {fault}"),
                    alert: fault.alert,
                    reply: None,
                }))
            }
            Err(_) => Err(attempt.fail(Failure::new(format!("{step}: no handshake within {time:?}")))),
        }
    }
}

impl Dial for BackendDialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>> {
        Box::pin(self.stream())
    }

    fn ready(&self) -> bool {
        self.uplink.ready()
    }
}
