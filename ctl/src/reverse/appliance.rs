//! One connection of an appliance: who it is, and the client on it.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, pki_types::CertificateDer};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Channel, Endpoint};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::failure::innermost;

/// Time for TLS, and again for HTTP/2.
const STEP: Duration = Duration::from_secs(10);
/// When an appliance that says nothing is asked whether it is there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Who an appliance is, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Appliance {
    /// Common name as a file name can hold it, or the beginning of the fingerprint.
    pub(super) name: String,
    /// Subject of its certificate.
    pub(super) subject: String,
    /// SHA-256 of its certificate, hexadecimal.
    pub(super) fingerprint: String,
    /// Where it came from.
    pub(super) from: SocketAddr,
}

/// An appliance that has passed TLS and speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) appliance: Appliance,
    pub(super) channel: Channel,
    /// Resolves when the connection is over.
    pub(super) gone: oneshot::Receiver<()>,
}

impl Appliance {
    /// Handshake with somebody who connected. The error is why not.
    pub(super) async fn greet(
        tls: Arc<ServerConfig>,
        tcp: TcpStream,
        from: SocketAddr,
    ) -> Result<Arrived, String> {
        // Headers and data of a call are two records: without this the second waits for the first one's
        // acknowledgement.
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let stream = match timeout(STEP, TlsAcceptor::from(tls).accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("TLS: {}", innermost(&error))),
            Err(_) => return Err(format!("TLS: no handshake within {} s", STEP.as_secs())),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let appliance = leaf.and_then(|leaf| Self::read(leaf, from));
        let appliance = appliance.ok_or("TLS: its certificate cannot be read")?;
        let (over, gone) = oneshot::channel();
        let mut io = Some(TokioIo::new(Watched { io: stream, _over: over }));
        let once = tower::service_fn(move |_| {
            let io = io.take().ok_or_else(|| io::Error::other("the appliance is gone"));
            async move { io }
        });
        let (every, within) = KEEPALIVE;
        let endpoint = Endpoint::from_static("http://appliance")
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(within)
            .keep_alive_while_idle(true);
        match timeout(STEP, endpoint.connect_with_connector(once)).await {
            Ok(Ok(channel)) => Ok(Arrived { appliance, channel, gone }),
            Ok(Err(error)) => Err(format!("HTTP/2: {}", innermost(&error))),
            Err(_) => Err(format!("HTTP/2: no answer within {} s", STEP.as_secs())),
        }
    }

    fn read(leaf: &CertificateDer<'_>, from: SocketAddr) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(leaf.as_ref()).ok()?;
        let fingerprint = Sha256::digest(leaf.as_ref()).iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let common = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let name = common.and_then(file_name).unwrap_or_else(|| fingerprint[..16].to_owned());
        Some(Self { name, subject: parsed.subject().to_string(), fingerprint, from })
    }
}

/// A name that is one file in one directory whatever the certificate says: other characters become `_`.
fn file_name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = text.chars().take(64).map(|c| if fits(c) { c } else { '_' }).collect();
    let name = match name.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => name,
    };
    name.contains(|c: char| c.is_ascii_alphanumeric()).then_some(name)
}

/// A stream whose end is noticed.
struct Watched<S> {
    io: S,
    _over: oneshot::Sender<()>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_name_is_one_file_in_one_directory() {
        let name = |text| file_name(text);
        assert_eq!(name("site-1.example").as_deref(), Some("site-1.example"));
        assert_eq!(name("../../etc/passwd").as_deref(), Some("_._.._etc_passwd"));
        assert_eq!(name("-rf").as_deref(), Some("_rf"));
        assert_eq!(name("a/b\0c\nd").as_deref(), Some("a_b_c_d"));
        assert_eq!(name("..").as_deref(), None);
        assert_eq!(name("").as_deref(), None);
        assert_eq!(name("日本").as_deref(), None, "the fingerprint serves then");
        assert_eq!(name(&"x".repeat(500)).map(|n| n.len()), Some(64));
    }
}
