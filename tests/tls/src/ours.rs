//! The daemon's own TLS towards a gateway, in either direction, as the uplink uses it.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use anyhow::{Context as _, anyhow};
use ladewartd::{
    clock::Clock,
    config::{Anchors, GatewayTls, Trust},
    identity::{Identity, PinBook},
    tls::{Fault, HanClient, Judge, Offer, Profile, Shown, han_server, provider, server_name, session},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{peer::LONG, pki::Leaf};

/// Trusts what ends in this root.
pub(crate) fn anchors(root: &Path, name: Option<&str>) -> Trust {
    Trust {
        pins: Vec::new(),
        ca: Some(Anchors { file: root.to_owned(), name: name.map(str::to_owned) }),
        tofu: false,
    }
}

fn shown(own: &Leaf) -> anyhow::Result<Shown> {
    let identity = Identity::load(&own.chain, &own.key, Profile::HAN)?;
    let shown = Shown::default();
    shown.set(Some(identity.certified_key()));
    Ok(shown)
}

fn judge(trust: &Trust) -> anyhow::Result<Arc<Judge>> {
    let provider = Arc::new(provider(Profile::HAN));
    Judge::new(trust, PinBook::default(), &provider, Clock::system()).map_err(|e| anyhow!(e))
}

pub(crate) fn client(own: &Leaf, trust: &Trust, tls: GatewayTls) -> anyhow::Result<HanClient> {
    HanClient::new(&shown(own)?, judge(trust)?, tls, Clock::system()).map_err(|e| anyhow!(e))
}

pub(crate) fn server(own: &Leaf, trust: &Trust, tls: GatewayTls) -> anyhow::Result<Arc<ServerConfig>> {
    han_server(&shown(own)?, judge(trust)?, Offer::from(tls), Clock::system()).map_err(|e| anyhow!(e))
}

/// Opens a session, sends a line and reads it turned round: version, suite and group; or the fault in words.
pub(crate) async fn talk(client: &HanClient, port: u16) -> anyhow::Result<Result<String, String>> {
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let name = server_name("localhost").map_err(|e| anyhow!(e))?;
    let work = async {
        let mut stream = match client.connect(name, tcp).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(Fault::new(&error).to_string())),
        };
        let about = session(stream.get_ref().1);
        // What a server of TLS 1.3 thinks of our certificate comes behind the handshake.
        if let Err(error) = stream.write_all(b"hello\n").await {
            return Ok(Err(Fault::new(&error).to_string()));
        }
        let mut line = String::new();
        match BufReader::new(stream).read_line(&mut line).await {
            Ok(_) if line == "olleh\n" => Ok(Ok(about)),
            Ok(_) => Ok(Err(format!("after the handshake came {line:?}"))),
            Err(error) => Ok(Err(Fault::new(&error).to_string())),
        }
    };
    timeout(LONG, work).await.context("our client does not end")?
}

/// Serves one session: sends the line that came back turned round.
pub(crate) async fn serve(
    config: &Arc<ServerConfig>,
    listener: &TcpListener,
) -> anyhow::Result<Result<String, String>> {
    let work = async {
        let (tcp, _) = listener.accept().await?;
        let stream = match TlsAcceptor::from(config.clone()).accept(tcp).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(Fault::new(&error).to_string())),
        };
        let about = session(stream.get_ref().1);
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        if let Err(error) = stream.read_line(&mut line).await {
            return Ok(Err(Fault::new(&error).to_string()));
        }
        let turned: String = line.trim_end().chars().rev().collect();
        stream.write_all(format!("{turned}\n").as_bytes()).await?;
        stream.shutdown().await?;
        // The peer's end comes first, or its data would be thrown away with the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Ok(Ok(about))
    };
    timeout(LONG, work).await.context("our server does not end")?
}
