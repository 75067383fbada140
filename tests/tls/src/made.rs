//! A key made on the device: its request read and checked by OpenSSL, the certificate that OpenSSL issues imported, and a
//! session with it.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow, ensure};
use ladewartd::{
    clock::Clock,
    config::GatewayTls,
    identity::{Algorithm, Store, Subject},
};
use serde_json::json;

use crate::{
    ours,
    peer::OpenSsl,
    pki::{self, CURVES, Wish, openssl},
    report, versions,
};

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::EcdsaP256,
    Algorithm::EcdsaP384,
    Algorithm::EcdsaBrainpoolP256r1,
    Algorithm::EcdsaBrainpoolP384r1,
    Algorithm::EcdsaBrainpoolP512r1,
];

pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    println!(
        "\na key made on the device, its request checked and signed by OpenSSL, the certificate imported"
    );
    let mut rows = Vec::new();
    for (curve, algorithm) in CURVES.into_iter().zip(ALGORITHMS) {
        let ca = pki::make(place, &format!("made-ca-{}", curve.short), [curve.name; 3], Wish::default())?;
        let directory = ca.root.parent().context("a directory")?;
        let store = Store::open(&directory.join("identities"), Clock::system())?;
        store.create_key("cls", algorithm)?;
        let subject = Subject {
            common_name: "site 4711".to_owned(),
            organization: "Example".to_owned(),
            country: "DE".to_owned(),
            dns_names: vec!["localhost".to_owned()],
        };
        fs::write(directory.join("made.csr"), store.request("cls", &subject)?)?;
        let checked = openssl(
            &["req", "-in", "made.csr", "-verify", "-noout", "-text", "-nameopt", "RFC2253"],
            directory,
        )?;
        ensure!(checked.to_lowercase().contains("self-signature verify ok"), "OpenSSL says {checked}");
        for part in [&format!("ASN1 OID: {}", curve.name), "C=DE", "O=Example", "CN=site 4711"] {
            ensure!(checked.contains(part), "{}: no {part:?} in {checked}", curve.name);
        }
        fs::write(
            directory.join("made.ext"),
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n",
        )?;
        let issue = [
            "x509",
            "-req",
            "-in",
            "made.csr",
            "-CA",
            "issuer-0.pem",
            "-CAkey",
            "issuer-0.key",
            "-CAcreateserial",
            "-days",
            "90",
            "-extfile",
            "made.ext",
            "-out",
            "made.pem",
        ];
        openssl(&issue, directory)?;
        // A certificate for another key is refused.
        let foreign = fs::read_to_string(&ca.chain)?;
        let refused =
            store.import_certificate("cls", &foreign).err().context("a foreign certificate was taken")?;
        let chain = fs::read_to_string(directory.join("made.pem"))? + &fs::read_to_string(&ca.issuers)?;
        let entry = store.import_certificate("cls", &chain)?;
        ensure!(entry.problem.is_empty() && entry.chain == 2, "{entry:?}");
        store.select("cls")?;
        for peer in peers {
            let gateway =
                pki::make(place, &format!("made-{}", curve.short), [curve.name; 3], Wish::default())?;
            let trust = ours::anchors(&gateway.root, None);
            let client = ours::client_showing(&store.shown(), &trust, GatewayTls::default())?;
            let options = ["-tls1_2", "-groups", &curve.group(false)];
            let server = peer.server(&gateway, &ca.root, &options).await?;
            let session = ours::talk(&client, server.port).await?.map_err(|fault| anyhow!(fault))?;
            println!("{:<16} {:<7} {session}", peer.to_string(), curve.short);
            rows.push(json!({ "peer": peer.to_string(), "curve": curve.short, "session": session,
                "foreign": refused.to_string() }));
        }
    }
    report(
        "tls-made",
        &json!({ "name": "tls-made", "unit": "sessions", "value": rows.len(), "rows": rows,
            "peer": versions(peers) }),
    )
}
