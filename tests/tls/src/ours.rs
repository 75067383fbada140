//! The daemon's own TLS towards a gateway, in either direction, as the uplink uses it.

use std::{net::Ipv4Addr, path::Path, process::Stdio, sync::Arc};

use anyhow::{Context as _, anyhow, ensure};
use ladewartd::{
    clock::Clock,
    config::{Anchors, GatewayTls, Trust},
    identity::{Identity, PinBook},
    tls::{
        Fault, HanClient, HanStream, Judge, Offer, Profile, Shown, han_server, provider, server_name, session,
    },
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    peer::{LONG, OpenSsl, Said, Server},
    pki::Leaf,
};

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
    client_showing(&shown(own)?, trust, tls)
}

pub(crate) fn client_showing(own: &Shown, trust: &Trust, tls: GatewayTls) -> anyhow::Result<HanClient> {
    HanClient::new(own, judge(trust)?, tls, Clock::system()).map_err(|e| anyhow!(e))
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

/// A session that the peer's client opens with us.
pub(crate) async fn served(
    peer: &OpenSsl,
    theirs: Option<&Leaf>,
    own: &Leaf,
    trust: &Trust,
    tls: GatewayTls,
    options: &[&str],
) -> anyhow::Result<(Result<String, String>, Said)> {
    let config = server(own, trust, tls)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let (served, said) =
        tokio::join!(serve(&config, &listener), peer.client(theirs, &own.root, port, options));
    Ok((served?, said?))
}

/// Serves one session: sends the line that came back turned round.
async fn serve(config: &Arc<ServerConfig>, listener: &TcpListener) -> anyhow::Result<Result<String, String>> {
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

/// Two sessions that stand, one in each direction.
pub(crate) struct Standing {
    _server: Server,
    to_server: BufReader<HanStream<TcpStream>>,
    _client: Child,
    input: ChildStdin,
    from_client: BufReader<tokio_rustls::server::TlsStream<TcpStream>>,
    turns: usize,
}

impl Standing {
    pub(crate) async fn new(
        peer: &OpenSsl,
        own: &Leaf,
        theirs: &Leaf,
        trust: &Trust,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let server = peer.server(theirs, &own.root, options).await?;
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).await?;
        let name = server_name("localhost").map_err(|e| anyhow!(e))?;
        let tls = GatewayTls::default();
        let to_server = timeout(LONG, client(own, trust, tls)?.connect(name, tcp)).await??;
        let config = self::server(own, trust, tls)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut child = peer.s_client(Some(theirs), &own.root, listener.local_addr()?.port(), options);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let accept = async {
            let (tcp, _) = listener.accept().await?;
            anyhow::Ok(TlsAcceptor::from(config).accept(tcp).await?)
        };
        Ok(Self {
            _server: server,
            to_server: BufReader::new(to_server),
            _client: child,
            input,
            from_client: BufReader::new(timeout(LONG, accept).await??),
            turns: 0,
        })
    }

    /// A line over each.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<()> {
        let work = async {
            let mut line = String::new();
            self.to_server.get_mut().write_all(b"hello\n").await?;
            self.to_server.read_line(&mut line).await?;
            ensure!(line == "olleh\n", "the server sent {line:?}");
            self.input.write_all(b"hello\n").await?;
            line.clear();
            self.from_client.read_line(&mut line).await?;
            ensure!(line == "hello\n", "the client sent {line:?}");
            Ok(())
        };
        timeout(LONG, work).await.context("a session that stood beside does not answer")??;
        self.turns += 1;
        Ok(())
    }

    /// Lines so far.
    pub(crate) const fn turns(&self) -> usize {
        self.turns
    }
}
