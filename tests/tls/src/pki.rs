//! Certificates of every curve, made by Debian's `openssl`: a root, an issuer below it, a leaf.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// A curve as OpenSSL calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) short: &'static str,
    /// What rustls calls the group.
    pub(crate) ours: &'static str,
    pub(crate) brainpool: bool,
}

pub(crate) const CURVES: [Curve; 5] = [
    Curve { name: "prime256v1", short: "P-256", ours: "secp256r1", brainpool: false },
    Curve { name: "secp384r1", short: "P-384", ours: "secp384r1", brainpool: false },
    Curve { name: "brainpoolP256r1", short: "bp256", ours: "brainpoolP256r1", brainpool: true },
    Curve { name: "brainpoolP384r1", short: "bp384", ours: "brainpoolP384r1", brainpool: true },
    Curve { name: "brainpoolP512r1", short: "bp512", ours: "brainpoolP512r1", brainpool: true },
];

/// A leaf with its key and its issuers.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// The leaf alone.
    pub(crate) leaf: PathBuf,
    /// The issuers between leaf and root.
    pub(crate) issuers: PathBuf,
    /// Both in one file, the leaf first.
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) root: PathBuf,
}

/// What is special about a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) key_usage: &'a str,
    pub(crate) purposes: &'a str,
    /// `YYYYMMDDHHMMSSZ`, both.
    pub(crate) dates: Option<(&'a str, &'a str)>,
    /// Issuers between leaf and root.
    pub(crate) issuers: usize,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { key_usage: "digitalSignature", purposes: "clientAuth,serverAuth", dates: None, issuers: 1 }
    }
}

/// Runs `openssl`.
pub(crate) fn openssl(arguments: &[&str], directory: &Path) -> anyhow::Result<String> {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .context("Debian's openssl is missing")?;
    ensure!(
        output.status.success(),
        "openssl {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes root, issuers and leaf; `curves` are those of the root, of the issuers and of the leaf.
pub(crate) fn make(place: &Path, name: &str, curves: [&str; 3], wish: Wish<'_>) -> anyhow::Result<Leaf> {
    let directory = place.join(name);
    fs::create_dir_all(&directory)?;
    let [root, issuer, leaf] = curves;
    key(&directory, "root", root)?;
    let subject = format!("/CN={name} root");
    let ca = "basicConstraints=critical,CA:TRUE";
    let signs = "keyUsage=critical,keyCertSign,cRLSign";
    openssl(
        &[
            "req", "-x509", "-new", "-key", "root.key", "-subj", &subject, "-days", "3650", "-sha256",
            "-addext", ca, "-addext", signs, "-out", "root.pem",
        ],
        &directory,
    )?;
    let mut above = "root".to_owned();
    let mut between = String::new();
    for i in 0..wish.issuers {
        let this = format!("issuer-{i}");
        key(&directory, &this, issuer)?;
        sign(&directory, &this, &above, &format!("{name} {this}"), &format!("{ca}\n{signs}\n"), None)?;
        between = fs::read_to_string(directory.join(format!("{this}.pem")))? + &between;
        above = this;
    }
    key(&directory, "leaf", leaf)?;
    let extensions = format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,{}\nextendedKeyUsage={}\n\
         subjectAltName=DNS:localhost\n",
        wish.key_usage, wish.purposes
    );
    sign(&directory, "leaf", &above, &format!("{name} leaf"), &extensions, wish.dates)?;
    let leaf = fs::read_to_string(directory.join("leaf.pem"))?;
    fs::write(directory.join("issuers.pem"), &between)?;
    fs::write(directory.join("chain.pem"), leaf + &between)?;
    let at = |file: &str| directory.join(file);
    Ok(Leaf {
        leaf: at("leaf.pem"),
        issuers: at("issuers.pem"),
        chain: at("chain.pem"),
        key: at("leaf.key"),
        root: at("root.pem"),
    })
}

fn key(directory: &Path, name: &str, curve: &str) -> anyhow::Result<()> {
    let (file, curve) = (format!("{name}.key"), format!("ec_paramgen_curve:{curve}"));
    openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            &curve,
            "-pkeyopt",
            "ec_param_enc:named_curve",
            "-out",
            &file,
        ],
        directory,
    )
    .map(drop)
}

fn sign(
    directory: &Path,
    name: &str,
    issuer: &str,
    subject: &str,
    extensions: &str,
    dates: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let file = |ending: &str| format!("{name}.{ending}");
    fs::write(directory.join(file("ext")), extensions)?;
    let subject = format!("/CN={subject}");
    openssl(
        &["req", "-new", "-key", &file("key"), "-subj", &subject, "-sha256", "-out", &file("csr")],
        directory,
    )?;
    if let Some((from, to)) = dates {
        // `openssl x509` takes no dates; `openssl ca` does.
        fs::write(directory.join("index.txt"), "")?;
        fs::write(
            directory.join("ca.cnf"),
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\npolicy=p\nrand_serial=yes\n\
             default_md=sha256\nunique_subject=no\n[p]\ncommonName=supplied\n",
        )?;
        openssl(
            &[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "ca.cnf",
                "-in",
                &file("csr"),
                "-cert",
                &format!("{issuer}.pem"),
                "-keyfile",
                &format!("{issuer}.key"),
                "-startdate",
                from,
                "-enddate",
                to,
                "-extfile",
                &file("ext"),
                "-out",
                &file("pem"),
            ],
            directory,
        )?;
        return Ok(());
    }
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CA",
            &format!("{issuer}.pem"),
            "-CAkey",
            &format!("{issuer}.key"),
            "-CAcreateserial",
            "-days",
            "365",
            "-sha256",
            "-extfile",
            &file("ext"),
            "-out",
            &file("pem"),
        ],
        directory,
    )
    .map(drop)
}
