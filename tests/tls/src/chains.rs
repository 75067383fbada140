//! Chains of mixed curves: root, issuer, leaf and key exchange each on another one.

use std::path::Path;

use anyhow::ensure;
use ladewartd::config::GatewayTls;
use serde_json::json;

use crate::{
    matrix::meet,
    peer::OpenSsl,
    pki::{self, CURVES, Wish},
    report, versions,
};

pub(crate) async fn run(peers: &[OpenSsl], place: &Path) -> anyhow::Result<()> {
    println!("\nchains of mixed curves, TLS 1.2, AES256-GCM");
    println!(
        "{:<16} {:<7} {:<24} {:<24} session",
        "peer", "we are", "our root > issuer > leaf", "the peer's"
    );
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for i in 0..CURVES.len() {
        let at = |j: usize| CURVES[(i + j) % CURVES.len()];
        let make = |name: &str, curves: [usize; 3]| {
            let chain = curves.map(|j| at(j).name);
            let text = curves.map(|j| at(j).short).join(" > ");
            pki::make(place, &format!("{name}-{i}"), chain, Wish::default()).map(|leaf| (leaf, text))
        };
        let (own, our_chain) = make("mixed-cls", [0, 1, 2])?;
        let (theirs, their_chain) = make("mixed-gateway", [1, 2, 0])?;
        // A strict peer wants the curves of both leaves among the groups (RFC 8422 §5.1.1).
        let groups = [at(3), at(2), at(0)].map(|curve| curve.group(false)).join(":");
        let options = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384", "-groups", &groups];
        for peer in peers {
            for client in [true, false] {
                let role = if client { "client" } else { "server" };
                let result = meet(peer, client, &own, &theirs, GatewayTls::default(), &options).await?;
                let text = match &result {
                    Ok(session) => session.clone(),
                    Err(fault) => format!("WRONG: {fault}"),
                };
                println!("{:<16} {role:<7} {our_chain:<24} {their_chain:<24} {text}", peer.to_string());
                rows.push(json!({ "peer": peer.to_string(), "role": role, "ours": our_chain,
                    "theirs": their_chain, "result": text }));
                if let Err(fault) = result {
                    wrong.push(format!("{peer}, we are {role}, {our_chain}: {fault}"));
                }
            }
        }
    }
    report(
        "tls-chains",
        &json!({ "name": "tls-chains", "unit": "sessions", "value": rows.len() - wrong.len(), "rows": rows,
            "peer": versions(peers) }),
    )?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
