//! Our curves against AWS-LC's: the same common secrets, each takes the other's signatures, and both refuse the same
//! damaged points and signatures. Then what each costs.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use ladewartd::{
    identity::Algorithm,
    tls::{self, Offer, Profile},
};
use rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, SupportedKxGroup},
    pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm, pem::PemObject as _},
    sign::SigningKey,
};
use serde_json::json;

use crate::{
    aws_lc::{self, Key},
    report,
};

/// Rounds per curve.
const ROUNDS: usize = 200;

/// A curve here and there.
struct Both {
    name: &'static str,
    theirs: aws_lc::Curve,
    group: &'static dyn SupportedKxGroup,
    verifier: &'static dyn SignatureVerificationAlgorithm,
    scheme: SignatureScheme,
    algorithm: Algorithm,
    digest: fn(&[u8]) -> Vec<u8>,
}

fn sha(bits: u32) -> fn(&[u8]) -> Vec<u8> {
    use rustls::crypto::hash::Hash;
    fn hash(suite: rustls::SupportedCipherSuite, data: &[u8]) -> Vec<u8> {
        let hash: &dyn Hash = match suite {
            rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        };
        hash.hash(data).as_ref().to_vec()
    }
    use rustls::crypto::ring::cipher_suite as s;
    match bits {
        256 => |data| hash(s::TLS13_AES_128_GCM_SHA256, data),
        384 => |data| hash(s::TLS13_AES_256_GCM_SHA384, data),
        _ => |data| aws_lc::sha512(data),
    }
}

fn curves(provider: &CryptoProvider) -> anyhow::Result<Vec<Both>> {
    let group = |number: u16| {
        let found = provider.kx_groups.iter().find(|group| u16::from(group.name()) == number);
        found.copied().with_context(|| format!("group {number} is missing"))
    };
    let verifier = |scheme: u16| {
        let mapping = provider.signature_verification_algorithms.mapping;
        let found = mapping.iter().find(|(other, _)| u16::from(*other) == scheme);
        found.map(|(_, algorithms)| algorithms[0]).with_context(|| format!("scheme {scheme:#x} is missing"))
    };
    [
        ("brainpoolP256r1", aws_lc::P256, 26, 0x081a, Algorithm::EcdsaBrainpoolP256r1, 256),
        ("brainpoolP384r1", aws_lc::P384, 27, 0x081b, Algorithm::EcdsaBrainpoolP384r1, 384),
        ("brainpoolP512r1", aws_lc::P512, 28, 0x081c, Algorithm::EcdsaBrainpoolP512r1, 512),
    ]
    .into_iter()
    .map(|(name, theirs, number, scheme, algorithm, bits)| {
        Ok(Both {
            name,
            theirs,
            group: group(number)?,
            verifier: verifier(scheme)?,
            scheme: SignatureScheme::from(scheme),
            algorithm,
            digest: sha(bits),
        })
    })
    .collect()
}

fn key(provider: &CryptoProvider, algorithm: Algorithm) -> anyhow::Result<Arc<dyn SigningKey>> {
    let pem = tls::generate(algorithm).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(provider.key_provider.load_private_key(PrivateKeyDer::from_pem_slice(pem.as_bytes())?)?)
}

/// The point at the end of a SubjectPublicKeyInfo.
fn point(key: &dyn SigningKey, length: usize) -> anyhow::Result<Vec<u8>> {
    let spki = key.public_key().context("no public key")?;
    Ok(spki.as_ref()[spki.as_ref().len() - length..].to_vec())
}

/// Numbers without a pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    let provider = tls::provider(Profile::Han(Offer { tls13: true, cbc: false }));
    let mut numbers = Numbers(4711);
    let mut rows = Vec::new();
    println!("{:<16} {:>8} {:>11} {:>8} {:>8}", "curve", "secrets", "signatures", "points", "damaged");
    for both in curves(&provider)? {
        let (mut secrets, mut signatures, mut points, mut damaged) = (0, 0, 0, 0);
        for round in 0..ROUNDS {
            // Secrets.
            let (ours, theirs) = (both.group.start()?, Key::generate(both.theirs)?);
            let our_share = ours.pub_key().to_vec();
            let their_share = theirs.bytes()?;
            ensure!(our_share.len() == their_share.len(), "{}: lengths differ", both.name);
            let here = ours.complete(&their_share)?;
            let there = theirs.agree(&our_share)?.context("AWS-LC refuses our share")?;
            ensure!(here.secret_bytes() == there, "{}: the secrets differ", both.name);
            secrets += 1;

            // Signatures, both ways, whole and with a bit turned.
            let message = format!("message {round} on {}", both.name).into_bytes();
            let digest = (both.digest)(&message);
            let own = key(&provider, both.algorithm)?;
            let own_point = point(&*own, our_share.len())?;
            let signer = own.choose_scheme(&[both.scheme]).context("no signer")?;
            let ours = signer.sign(&message)?;
            let public = Key::public(both.theirs, &own_point)?.context("AWS-LC refuses our key")?;
            ensure!(public.verify(&digest, &ours), "{}: AWS-LC refuses our signature", both.name);
            let their_signature = theirs.sign(&digest)?;
            let verify =
                |signature: &[u8]| both.verifier.verify_signature(&their_share, &message, signature).is_ok();
            ensure!(verify(&their_signature), "{}: we refuse AWS-LC's signature", both.name);
            signatures += 2;
            for _ in 0..4 {
                let mut bad = their_signature.clone();
                let bit = numbers.below(8 * bad.len());
                bad[bit / 8] ^= 1 << (bit % 8);
                ensure!(
                    verify(&bad) == theirs.verify(&digest, &bad),
                    "{}: one takes a damaged signature, bit {bit}",
                    both.name
                );
                damaged += 1;
            }

            // Points.
            for _ in 0..4 {
                let mut bad = their_share.clone();
                let bit = 8 + numbers.below(8 * (bad.len() - 1));
                bad[bit / 8] ^= 1 << (bit % 8);
                let here = both.group.start()?.complete(&bad).is_ok();
                ensure!(
                    here == Key::public(both.theirs, &bad)?.is_some(),
                    "{}: one takes a damaged point, bit {bit}",
                    both.name
                );
                points += 1;
            }
        }
        println!("{:<16} {secrets:>8} {signatures:>11} {points:>8} {damaged:>8}", both.name);
        rows.push(json!({ "curve": both.name, "secrets": secrets, "signatures": signatures,
            "points": points, "damaged": damaged }));
    }
    println!("no difference from AWS-LC");
    report(
        "tls-oracle",
        &json!({ "name": "tls-oracle", "unit": "agreements", "rows": rows, "peer": "AWS-LC" }),
    )?;
    cost(&provider)
}

/// Milliseconds of one computation, the median of several runs.
fn median(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    const BATCH: u32 = 10;
    let mut times = Vec::new();
    for _ in 0..11 {
        let from = Instant::now();
        for _ in 0..BATCH {
            work()?;
        }
        times.push(from.elapsed().as_secs_f64() * 1e3 / f64::from(BATCH));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn cost(provider: &CryptoProvider) -> anyhow::Result<()> {
    println!("\n{:<16} {:<9} {:>11} {:>9} {:>9} {:>9}", "ms", "of", "new key", "+ common", "sign", "verify");
    let mut rows = Vec::new();
    for both in curves(provider)? {
        let theirs = Key::generate(both.theirs)?;
        let share = theirs.bytes()?;
        let own = key(provider, both.algorithm)?;
        let signer = own.choose_scheme(&[both.scheme]).context("no signer")?;
        let own_point = point(&*own, share.len())?;
        let signature = signer.sign(b"message")?;
        let digest = (both.digest)(b"message");
        let public = Key::public(both.theirs, &own_point)?.context("refused")?;
        let ours = [
            median(|| both.group.start().map(drop).map_err(Into::into))?,
            median(|| both.group.start()?.complete(&share).map(drop).map_err(Into::into))?,
            median(|| signer.sign(b"message").map(drop).map_err(Into::into))?,
            median(|| {
                let verified = both.verifier.verify_signature(&own_point, b"message", &signature);
                ensure!(verified.is_ok(), "refused");
                Ok(())
            })?,
        ];
        let aws_lc = [
            median(|| Key::generate(both.theirs).map(drop))?,
            median(|| Key::generate(both.theirs)?.agree(&own_point).map(drop))?,
            median(|| theirs.sign(&digest).map(drop))?,
            median(|| {
                ensure!(public.verify(&digest, &signature), "refused");
                Ok(())
            })?,
        ];
        for (of, times) in [("ours", ours), ("AWS-LC", aws_lc)] {
            let [new, common, sign, verify] = times;
            println!("{:<16} {of:<9} {new:>11.3} {common:>9.3} {sign:>9.3} {verify:>9.3}", both.name);
            rows.push(json!({ "curve": both.name, "of": of, "new_key": new, "new_key_and_common": common,
                "sign": sign, "verify": verify }));
        }
    }
    report("tls-curves", &json!({ "name": "tls-curves", "unit": "ms", "rows": rows, "peer": "AWS-LC" }))
}
