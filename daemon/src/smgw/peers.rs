//! Peers for tests: a gateway (rustls server, fast-socks5 or a script behind it), an echo as the target, and the
//! certificates of all.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fast_socks5::{ReplyError, server::Socks5ServerProtocol, util::target_addr::TargetAddr};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::config;

/// A certificate with its key.
pub(super) struct Signed {
    pub(super) der: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl Signed {
    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    pub(super) fn fingerprint(&self) -> [u8; 32] {
        crate::identity::fingerprint(&self.der)
    }
}

/// What a leaf is like.
pub(super) struct Leaf {
    pub(super) name: &'static str,
    pub(super) from: i32,
    pub(super) until: i32,
    pub(super) algorithm: &'static SignatureAlgorithm,
    pub(super) ca_flag: bool,
    pub(super) usage: ExtendedKeyUsagePurpose,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            name: "smgw.local",
            from: 2020,
            until: 2099,
            algorithm: &PKCS_ECDSA_P256_SHA256,
            ca_flag: false,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

impl Leaf {
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.not_before = date_time_ymd(self.from, 1, 1);
        params.not_after = date_time_ymd(self.until, 1, 1);
        params.extended_key_usages = vec![self.usage.clone()];
        if self.ca_flag {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    pub(super) fn signed_by(&self, ca: &Ca) -> Signed {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let certificate = self.params().signed_by(&key, &ca.issuer).unwrap();
        Signed { der: certificate.der().clone(), key }
    }

    pub(super) fn self_signed(&self) -> Signed {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let certificate = self.params().self_signed(&key).unwrap();
        Signed { der: certificate.der().clone(), key }
    }
}

pub(super) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// The certificate that a request asks for.
    pub(super) fn answer(&self, request: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = date_time_ymd(2020, 1, 1);
        request.params.not_after = date_time_ymd(2099, 1, 1);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

/// What stands behind the gateway's TLS.
#[derive(Debug, Clone)]
pub(super) enum Proxy {
    /// fast-socks5; every name leads to this address.
    Socks(SocketAddr),
    /// fast-socks5; leads where it is asked to.
    Honest,
    /// Bytes: what to read, what to answer, piece by piece.
    Script(Vec<Act>),
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Reads as many bytes.
    Read(usize),
    /// Writes at once.
    Write(Vec<u8>),
    /// Writes each byte in a record of its own.
    Single(Vec<u8>),
    /// The same, with a pause before each: longer together than anybody waits.
    Slow(Vec<u8>),
    /// Echoes until the end.
    Echo,
    /// Echoes if the handshake asked for this name, closes otherwise.
    EchoFor(&'static str),
    /// Tells the fingerprint of the client's certificate, then echoes.
    TellClient,
    /// Waits for the other side's end.
    Wait,
    /// Closes the connection without ending the TLS session.
    HangUp,
}

/// How the gateway does TLS.
pub(super) struct Tls {
    pub(super) certificate: Signed,
    /// The CA of the client certificates that it takes.
    pub(super) clients: RootCertStore,
    pub(super) suites: Vec<SupportedCipherSuite>,
    pub(super) versions: Vec<&'static rustls::SupportedProtocolVersion>,
}

/// Peers and the files that a configuration names.
pub(super) struct Peers {
    pub(super) cls_ca: Ca,
    pub(super) gateway_ca: Ca,
    directory: tempfile::TempDir,
    tasks: JoinSet<()>,
}

impl Peers {
    pub(super) fn new() -> Self {
        let peers = Self {
            cls_ca: Ca::new("CLS CA"),
            gateway_ca: Ca::new("Gateway CA"),
            directory: tempfile::tempdir().unwrap(),
            tasks: JoinSet::new(),
        };
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let cls = Leaf { name: "cls", usage, ..Leaf::default() }.signed_by(&peers.cls_ca);
        peers.write_identity("cls", &cls);
        peers.write("gateway-ca.pem", &peers.gateway_ca.issuer.pem());
        peers
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.file(name);
        fs::write(&file, text).unwrap();
        file
    }

    pub(super) fn write_identity(&self, name: &str, signed: &Signed) {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(&signed.der);
        let lines: Vec<_> =
            body.as_bytes().chunks(64).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        self.write(&format!("{name}.pem"), &pem);
        self.write(&format!("{name}.key"), &signed.key.serialize_pem());
    }

    /// A gateway's TLS as it should be.
    pub(super) fn tls(&self, certificate: Signed) -> Tls {
        Tls {
            certificate,
            clients: self.cls_ca.roots(),
            suites: ring::default_provider().cipher_suites,
            versions: vec![&rustls::version::TLS12],
        }
    }

    pub(super) fn good(&self) -> Tls {
        self.tls(Leaf::default().signed_by(&self.gateway_ca))
    }

    /// Repeats what it is told.
    pub(super) async fn echo(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    /// Repeats what it is told inside TLS.
    pub(super) async fn tls_echo(&mut self, tls: Tls) -> SocketAddr {
        self.gateway(tls, Proxy::Script(vec![Act::Echo])).await
    }

    /// Accepts and says nothing.
    pub(super) async fn stall(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        address
    }

    /// A line to a gateway that can be cut: while it is, whoever connects is dropped.
    pub(super) async fn line(&mut self, to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        self.tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                open.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        (address, cut)
    }

    /// Accepts, says something and closes.
    pub(super) async fn greeter(&mut self, words: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(words).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    /// A port where nobody listens.
    pub(super) async fn nobody(&self) -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    /// Connects to us as the gateway of mode `listen` does, with this certificate.
    pub(super) async fn call(
        &self,
        to: SocketAddr,
        certificate: Option<&Signed>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(self.cls_ca.roots());
        let config = match certificate {
            Some(signed) => builder.with_client_auth_cert(vec![signed.der.clone()], signed.secret()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(to).await?;
        let name = rustls::pki_types::ServerName::try_from("cls").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    pub(super) async fn gateway(&mut self, tls: Tls, proxy: Proxy) -> SocketAddr {
        let mut provider = ring::default_provider();
        provider.cipher_suites = tls.suites;
        let provider = Arc::new(provider);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(tls.clients), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&tls.versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                vec![tls.certificate.der.clone()],
                ring::sign::any_ecdsa_type(&tls.certificate.secret()).unwrap(),
            ))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, proxy) = (acceptor.clone(), proxy.clone());
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    serve(stream, proxy).await;
                });
            }
        });
        address
    }

    /// Our side of a gateway there.
    pub(super) fn side(&self, address: &str, trust: config::Trust) -> config::Gateway {
        config::Gateway {
            address: address.to_owned(),
            interface: None,
            own: config::Own::Files { certificate: self.file("cls.pem"), key: self.file("cls.key") },
            trust,
            tls: config::GatewayTls::default(),
        }
    }

    pub(super) fn config(&self, gateway: SocketAddr, trust: config::Trust) -> config::Uplink {
        config::Uplink {
            mode: config::Mode::Socks5(self.side(&gateway.to_string(), trust)),
            targets: Vec::new(),
            connections: config::Connections::Many,
            renew_after: Duration::from_secs(47 * 3600),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            step_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn trust_ca(&self) -> config::Trust {
        self.trust_name(None)
    }

    pub(super) fn trust_name(&self, name: Option<&str>) -> config::Trust {
        let ca = config::Anchors { file: self.file("gateway-ca.pem"), name: name.map(str::to_owned) };
        config::Trust { ca: Some(ca), ..config::Trust::default() }
    }

    pub(super) fn backend(&self, tls: bool) -> config::Backend {
        config::Backend {
            password: None,
            identity: None,
            compression: false,
            tls: tls.then(|| config::BackendTls { ca: self.file("gateway-ca.pem"), identity: None }),
            host: "emt.example".to_owned(),
            port: 9000,
            target: None,
            path: "/".to_owned(),
            ping_interval: Duration::from_secs(60),
            call_timeout: Duration::from_secs(30),
            attempts: 3,
            retry_interval: Duration::from_secs(60),
        }
    }
}

type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

async fn serve(mut stream: ServerStream, proxy: Proxy) {
    match proxy {
        Proxy::Socks(_) | Proxy::Honest => {
            let Ok(asked) = Socks5ServerProtocol::accept_no_auth(stream).await else {
                return;
            };
            let Ok((asked, _, named)) = asked.read_command().await else {
                return;
            };
            let target = match (&proxy, named) {
                (Proxy::Socks(target), _) => *target,
                (_, TargetAddr::Ip(target)) => target,
                (_, TargetAddr::Domain(..)) => return,
            };
            match TcpStream::connect(target).await {
                Ok(mut behind) => {
                    let Ok(mut stream) = asked.reply_success(target).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                }
                Err(_) => {
                    let _ = asked.reply_error(&ReplyError::ConnectionRefused).await;
                }
            }
        }
        Proxy::Script(acts) => {
            for act in acts {
                let done = match act {
                    Act::Read(n) => stream.read_exact(&mut vec![0; n]).await.map(drop),
                    Act::Write(bytes) => stream.write_all(&bytes).await,
                    Act::Single(bytes) => single(&mut stream, &bytes).await,
                    Act::Slow(bytes) => slow(&mut stream, &bytes).await,
                    Act::Echo => echo(&mut stream).await,
                    Act::HangUp => return,
                    Act::Wait => tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop),
                    Act::EchoFor(name) => match stream.get_ref().1.server_name() {
                        Some(asked) if asked == name => echo(&mut stream).await,
                        _ => return drop(stream.shutdown().await),
                    },
                    Act::TellClient => {
                        let client =
                            crate::identity::fingerprint(&stream.get_ref().1.peer_certificates().unwrap()[0]);
                        match stream.write_all(&client).await {
                            Ok(()) => echo(&mut stream).await,
                            Err(error) => Err(error),
                        }
                    }
                };
                if done.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
            let _ = stream.shutdown().await;
        }
    }
}

async fn single(stream: &mut ServerStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        // Lets the record go out by itself.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn slow(stream: &mut ServerStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        tokio::time::sleep(Duration::from_millis(100)).await;
        single(stream, &[*byte]).await?;
    }
    Ok(())
}

async fn echo(stream: &mut ServerStream) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&piece[..n]).await?;
        stream.flush().await?;
    }
}
