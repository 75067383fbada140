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
    /// What we call the group.
    pub(crate) ours: &'static str,
    pub(crate) brainpool: bool,
}

impl Curve {
    /// OpenSSL's name for the group; those of brainpool in TLS 1.3 are others.
    pub(crate) fn group(self, tls13: bool) -> String {
        match self.name {
            "prime256v1" => "P-256".to_owned(),
            "secp384r1" => "P-384".to_owned(),
            other if tls13 => format!("{other}tls13"),
            other => other.to_owned(),
        }
    }
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
    pub(crate) certificate: PathBuf,
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

/// Runs `openssl` with settings of its own, not the machine's.
pub(crate) fn openssl(arguments: &[&str], directory: &Path) -> anyhow::Result<String> {
    let settings = directory.join("openssl.cnf");
    if !settings.exists() {
        fs::write(&settings, "[req]\ndistinguished_name=d\n[d]\n")?;
    }
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .env("OPENSSL_CONF", settings)
        .output()
        .context("Debian's openssl is missing")?;
    ensure!(
        output.status.success(),
        "openssl {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// Makes root, issuers and leaf; `algorithms` are those of the root, of the issuers and of the leaf. Each signs with
/// the hash of its curve's length.
pub(crate) fn make(place: &Path, name: &str, algorithms: [&str; 3], wish: Wish<'_>) -> anyhow::Result<Leaf> {
    let directory = place.join(name);
    fs::create_dir_all(&directory)?;
    let [root, issuer, leaf] = algorithms;
    key(&directory, "root", root)?;
    let ours = Signer { directory: &directory, file: "root", algorithm: root };
    ours.sign("root", root, &format!("{name} root"), CA, None)?;
    let mut above = ("root".to_owned(), root);
    let mut between = String::new();
    for i in 0..wish.issuers {
        let this = format!("issuer-{i}");
        key(&directory, &this, issuer)?;
        let signer = Signer { directory: &directory, file: &above.0, algorithm: above.1 };
        signer.sign(&this, issuer, &format!("{name} {this}"), CA, None)?;
        between = fs::read_to_string(directory.join(format!("{this}.pem")))? + &between;
        above = (this, issuer);
    }
    key(&directory, "leaf", leaf)?;
    let extensions = format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,{}\nextendedKeyUsage={}\n\
         subjectAltName=DNS:localhost\n",
        wish.key_usage, wish.purposes
    );
    let signer = Signer { directory: &directory, file: &above.0, algorithm: above.1 };
    signer.sign("leaf", leaf, &format!("{name} leaf"), &extensions, wish.dates)?;
    let leaf = fs::read_to_string(directory.join("leaf.pem"))?;
    fs::write(directory.join("issuers.pem"), &between)?;
    fs::write(directory.join("chain.pem"), leaf + &between)?;
    let at = |file: &str| directory.join(file);
    Ok(Leaf {
        certificate: at("leaf.pem"),
        issuers: at("issuers.pem"),
        chain: at("chain.pem"),
        key: at("leaf.key"),
        root: at("root.pem"),
    })
}

/// OpenSSL's option for the hash that a key signs with.
fn hash(algorithm: &str) -> &'static str {
    match algorithm {
        "secp384r1" | "brainpoolP384r1" => "-sha384",
        "secp521r1" | "brainpoolP512r1" => "-sha512",
        _ => "-sha256",
    }
}

/// `algorithm` is a curve, `ED25519` or `RSA`.
fn key(directory: &Path, name: &str, algorithm: &str) -> anyhow::Result<()> {
    let file = format!("{name}.key");
    let curve = format!("ec_paramgen_curve:{algorithm}");
    let options: &[&str] = match algorithm {
        "ED25519" => &["-algorithm", "ED25519"],
        "RSA" => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        _ => &["-algorithm", "EC", "-pkeyopt", &curve, "-pkeyopt", "ec_param_enc:named_curve"],
    };
    openssl(&[&["genpkey"], options, &["-out", &file]].concat(), directory).map(drop)
}

/// A key that issues: its file without ending.
struct Signer<'a> {
    directory: &'a Path,
    file: &'a str,
    algorithm: &'a str,
}

impl Signer<'_> {
    /// Issues a certificate for the key in `NAME.key`; with its own name, for itself.
    fn sign(
        &self,
        name: &str,
        algorithm: &str,
        subject: &str,
        extensions: &str,
        dates: Option<(&str, &str)>,
    ) -> anyhow::Result<()> {
        let directory = self.directory;
        let file = |ending: &str| format!("{name}.{ending}");
        let (of_key, of_csr, of_extensions, of_pem) = (file("key"), file("csr"), file("ext"), file("pem"));
        fs::write(directory.join(&of_extensions), extensions)?;
        let subject = format!("/CN={subject}");
        let request = ["req", "-new", "-key", &of_key, "-subj", &subject, hash(algorithm), "-out", &of_csr];
        openssl(&request, directory)?;
        let (issuer, issuer_key) = (format!("{}.pem", self.file), format!("{}.key", self.file));
        let with = hash(self.algorithm);
        let mut issue = match dates {
            None => vec!["x509", "-req", "-days", "365", with, "-extfile", &of_extensions],
            // `openssl x509` takes no dates; `openssl ca` does.
            Some((from, to)) => {
                fs::write(directory.join("index.txt"), "")?;
                fs::write(
                    directory.join("ca.cnf"),
                    "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\npolicy=p\n\
                     rand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n",
                )?;
                vec![
                    "ca",
                    "-batch",
                    "-notext",
                    "-config",
                    "ca.cnf",
                    "-md",
                    &with[1..],
                    "-startdate",
                    from,
                    "-enddate",
                    to,
                    "-extfile",
                    &of_extensions,
                ]
            }
        };
        issue.extend(["-in", &of_csr, "-out", &of_pem]);
        match (name == self.file, dates) {
            (true, _) => issue.extend(["-signkey", &of_key]),
            (false, None) => issue.extend(["-CA", &issuer, "-CAkey", &issuer_key, "-CAcreateserial"]),
            (false, Some(_)) => issue.extend(["-cert", &issuer, "-keyfile", &issuer_key]),
        }
        openssl(&issue, directory).map(drop)
    }
}
