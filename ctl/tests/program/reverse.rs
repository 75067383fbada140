//! `ladewartctl reverse-listen` against appliances that are right, wrong and many.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{DEADLINE, daemon::Daemon, run, says};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec!["operator.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

struct Operator {
    ca: Authority,
    dir: tempfile::TempDir,
    address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

impl Operator {
    async fn start() -> Self {
        let (ca, dir) = (authority("ca"), tempfile::tempdir().unwrap());
        let (certificate, key) = leaf(&ca, "operator");
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        fs::write(dir.path().join("o.pem"), certificate.pem()).unwrap();
        fs::write(dir.path().join("o.key"), key.serialize_pem()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ladewartctl"))
            .current_dir(dir.path())
            .args(["-o", "json", "reverse-listen", "--listen", "127.0.0.1:0", "--ca", "ca.pem"])
            .args(["--certificate", "o.pem", "--key", "o.key", "--socket-dir", "sockets"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        let address = first["address"].as_str().unwrap().parse().unwrap();
        Self { ca, dir, address, lines, _child: child }
    }

    /// The next event of this kind; others are passed over.
    async fn told(&mut self, event: &str) -> Value {
        let find = async {
            loop {
                let line = self.lines.next_line().await.unwrap().unwrap();
                let told: Value = serde_json::from_str(&line).unwrap();
                if told["event"] == event {
                    return told;
                }
            }
        };
        soon(find).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("sockets").join(name)
    }

    /// An appliance: TLS with its certificate, inside the daemon's interface.
    async fn appliance(&self, own: &(rcgen::Certificate, KeyPair), daemon: &Path) -> JoinSet<()> {
        let mut stream = self.dial(own).await.unwrap();
        let mut inside = UnixStream::connect(daemon).await.unwrap();
        let mut pipe = JoinSet::new();
        pipe.spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
        });
        pipe
    }

    async fn dial(&self, own: &(rcgen::Certificate, KeyPair)) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.1.serialize_der()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own.0.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("operator.example").unwrap();
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
    }
}

#[tokio::test]
async fn each_appliance_has_its_socket_while_it_is_there() {
    let daemon = Daemon::start();
    let mut operator = Operator::start().await;
    let (first, second) = (leaf(&operator.ca, "site/1"), leaf(&operator.ca, "site/1"));
    let old = operator.appliance(&first, &daemon.socket).await;
    let one = operator.told("connected").await;
    assert_eq!((one["name"].as_str(), one["subject"].as_str()), (Some("site_1"), Some("CN=site/1")));
    // Another certificate with the same name is another appliance.
    let _two = operator.appliance(&second, &daemon.socket).await;
    let two = operator.told("connected").await;
    let name = format!("site_1-{}", &two["fingerprint"].as_str().unwrap()[..16]);
    assert_eq!(two["name"], name);
    for socket in ["site_1.sock".to_owned(), format!("{name}.sock")] {
        let path = operator.path(&socket);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "for this user only");
        let status = run(&path, &["status"]).await;
        assert_eq!(status.code, Some(0), "{}", status.err);
        let refused = run(&path, &["limit", "set", "4200", "--node", "attic"]).await;
        assert_eq!(
            refused.code,
            run(&daemon.socket, &["limit", "set", "4200", "--node", "attic"]).await.code
        );
    }
    let mode = fs::metadata(operator.path("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // The next connection of the same certificate takes the socket over; the old one's end changes nothing.
    let renewed = operator.appliance(&first, &daemon.socket).await;
    assert_eq!(operator.told("renewed").await["name"], "site_1");
    drop(old);
    assert_eq!(run(&operator.path("site_1.sock"), &["status"]).await.code, Some(0));
    drop(renewed);
    assert_eq!(operator.told("gone").await["name"], "site_1");
    assert!(!operator.path("site_1.sock").exists());
    assert!(operator.path(&format!("{name}.sock")).exists(), "the other one stays");
}

#[tokio::test]
async fn strangers_and_stallers_keep_no_appliance_out() {
    let daemon = Daemon::start();
    let mut operator = Operator::start().await;
    let stranger = leaf(&authority("other"), "site-1");
    let refused = async {
        let mut stream = operator.dial(&stranger).await?;
        stream.read_u8().await
    };
    let error = refused.await.unwrap_err().to_string();
    assert!(error.contains("UnknownCA"), "{error}");
    assert!(operator.told("refused").await["reason"].as_str().unwrap().contains("UnknownIssuer"));
    let mut silent = Vec::new();
    for n in 0..300_u32 {
        let mut stream = soon(TcpStream::connect(operator.address)).await.unwrap();
        if n.is_multiple_of(2) {
            let _ = stream.write_all(&[0xff; 100]).await;
        }
        silent.push(stream);
    }
    let _pipe = operator.appliance(&leaf(&operator.ca, "site-1"), &daemon.socket).await;
    operator.told("connected").await;
    assert_eq!(run(&operator.path("site-1.sock"), &["status"]).await.code, Some(0));
}

#[tokio::test]
async fn what_cannot_work_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let ca = authority("ca");
    let ((certificate, key), (_, other)) = (leaf(&ca, "a"), leaf(&ca, "b"));
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    fs::write(dir.path().join("o.pem"), certificate.pem()).unwrap();
    fs::write(dir.path().join("o.key"), key.serialize_pem()).unwrap();
    fs::write(dir.path().join("other.key"), other.serialize_pem()).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::create_dir(dir.path().join("open")).unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let busy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = busy.local_addr().map(|address| (busy, address.to_string())).unwrap();
    let free = "127.0.0.1:0";
    for (listen, certificate, key, ca, sockets, sentence) in [
        (free, "gone", "o.key", "ca.pem", "s", "cannot be read"),
        (free, "empty", "o.key", "ca.pem", "s", "holds no certificate"),
        (free, "o.pem", "empty", "ca.pem", "s", "holds no private key"),
        (free, "o.pem", "other.key", "ca.pem", "s", "does not belong to"),
        (free, "o.pem", "o.key", "empty", "s", "holds no certificate"),
        (free, "o.pem", "o.key", "ca.pem", "open", "may be written by others"),
        (free, "o.pem", "o.key", "ca.pem", "no/where", "cannot be used"),
        (busy.1.as_str(), "o.pem", "o.key", "ca.pem", "s", "cannot listen for appliances on"),
    ] {
        let (certificate, key, ca, sockets) = (file(certificate), file(key), file(ca), file(sockets));
        let mut args = vec!["reverse-listen", "--listen", listen, "--certificate", &certificate];
        args.extend(["--key", &key, "--ca", &ca, "--socket-dir", &sockets]);
        says(&run(Path::new("/nowhere"), &args).await, 1, sentence);
    }
}
