//! Our curves against AWS-LC's: the same common secrets, each takes the other's signatures, and both refuse the same
//! damaged points and signatures.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, SupportedKxGroup},
    pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm, pem::PemObject as _},
    sign::SigningKey,
};
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::{
    aws_lc::{self, Key},
    identity::Algorithm,
    report,
    tls::{self, Offer, Profile},
};

/// Rounds per curve.
fn rounds() -> usize {
    std::env::var("TLS_ORACLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A curve here and there.
pub(crate) struct Both {
    pub(crate) name: &'static str,
    pub(crate) theirs: aws_lc::Curve,
    pub(crate) group: &'static dyn SupportedKxGroup,
    pub(crate) verifier: &'static dyn SignatureVerificationAlgorithm,
    pub(crate) scheme: SignatureScheme,
    pub(crate) algorithm: Algorithm,
    pub(crate) digest: fn(&[u8]) -> Vec<u8>,
}

pub(crate) fn curves(provider: &CryptoProvider) -> anyhow::Result<Vec<Both>> {
    let group = |number: u16| {
        let found = provider.kx_groups.iter().find(|group| u16::from(group.name()) == number);
        found.copied().with_context(|| format!("group {number} is missing"))
    };
    let verifier = |scheme: u16| {
        let mapping = provider.signature_verification_algorithms.mapping;
        let found = mapping.iter().find(|(other, _)| u16::from(*other) == scheme);
        found.map(|(_, algorithms)| algorithms[0]).with_context(|| format!("scheme {scheme:#x} is missing"))
    };
    let sha256: fn(&[u8]) -> Vec<u8> = |data| Sha256::digest(data).to_vec();
    let sha384: fn(&[u8]) -> Vec<u8> = |data| Sha384::digest(data).to_vec();
    let sha512: fn(&[u8]) -> Vec<u8> = |data| Sha512::digest(data).to_vec();
    [
        ("brainpoolP256r1", aws_lc::P256, 26, 0x081a, Algorithm::EcdsaBrainpoolP256r1, sha256),
        ("brainpoolP384r1", aws_lc::P384, 27, 0x081b, Algorithm::EcdsaBrainpoolP384r1, sha384),
        ("brainpoolP512r1", aws_lc::P512, 28, 0x081c, Algorithm::EcdsaBrainpoolP512r1, sha512),
    ]
    .into_iter()
    .map(|(name, theirs, number, scheme, algorithm, digest)| {
        Ok(Both {
            name,
            theirs,
            group: group(number)?,
            verifier: verifier(scheme)?,
            scheme: SignatureScheme::from(scheme),
            algorithm,
            digest,
        })
    })
    .collect()
}

pub(crate) fn key(provider: &CryptoProvider, algorithm: Algorithm) -> anyhow::Result<Arc<dyn SigningKey>> {
    let pem = tls::generate(algorithm).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(provider.key_provider.load_private_key(PrivateKeyDer::from_pem_slice(pem.as_bytes())?)?)
}

/// The point at the end of a SubjectPublicKeyInfo.
pub(crate) fn point(key: &dyn SigningKey, length: usize) -> anyhow::Result<Vec<u8>> {
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

    fn turned(&mut self, bytes: &[u8], from: usize) -> Vec<u8> {
        let mut bad = bytes.to_vec();
        let bit = 8 * from + self.below(8 * (bytes.len() - from));
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    }

    /// Bits turned, and forms that are not the one DER of two numbers from 1 to n − 1.
    fn damaged_signatures(&mut self, good: &[u8]) -> Vec<Vec<u8>> {
        let mut list: Vec<_> = (0..4).map(|_| self.turned(good, 0)).collect();
        // Two lengths of one byte each, or of two on 512 bits; the numbers come behind them.
        let head = if good[1] == 0x81 { 3 } else { 2 };
        let r = usize::from(good[head + 1]);
        let (numbers, s_at) = (&good[head..], r + 2);
        let (r, s) = (&numbers[2..s_at], &numbers[s_at + 2..]);
        list.push([good, &[0]].concat());
        list.push(good[..good.len() - 1].to_vec());
        list.push(Vec::new());
        for (r, s) in [
            (s, r),
            (r, &[0][..]),
            (&[0][..], s),
            (&[0xff; 4][..], s),
            (r, &[&[0][..], &[0xff; 64]].concat()[..]),
            (&[&[0][..], r].concat()[..], s),
            (&[1][..], &[1][..]),
        ] {
            list.push(signature(r, s));
        }
        list
    }

    /// Bits turned, coordinates out of range, swapped or missing, and infinity.
    fn damaged_points(&mut self, good: &[u8]) -> Vec<Vec<u8>> {
        let mut list: Vec<_> = (0..4).map(|_| self.turned(good, 1)).collect();
        let half = (good.len() - 1) / 2;
        let (x, y) = (&good[1..=half], &good[half + 1..]);
        let (high, zero) = (vec![0xff; half], vec![0; half]);
        for (x, y) in [(y, x), (&high, y), (x, &high), (&zero, &zero), (x, &zero), (&zero, y), (x, x)] {
            list.push([&[4], x, y].concat());
        }
        list.push(good[..good.len() - 1].to_vec());
        list.push([good, &[0]].concat());
        list.push(vec![0]);
        list.push(vec![4]);
        list
    }
}

/// DER with these two numbers as they stand.
fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u8::try_from(bytes).unwrap_or(u8::MAX);
    let body = [&[2, length(r.len())], r, &[2, length(s.len())], s].concat();
    let head: &[u8] =
        if body.len() < 0x80 { &[0x30, length(body.len())] } else { &[0x30, 0x81, length(body.len())] };
    [head, &body].concat()
}

pub(crate) fn run() -> anyhow::Result<()> {
    let provider = tls::provider(Profile::Han(Offer { tls13: true, cbc: false }));
    let mut numbers = Numbers(4711);
    let mut rows = Vec::new();
    println!("{:<16} {:>8} {:>11} {:>8} {:>8}", "curve", "secrets", "signatures", "points", "damaged");
    for both in curves(&provider)? {
        let (mut secrets, mut signatures, mut points, mut damaged) = (0, 0, 0, 0);
        for round in 0..rounds() {
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
            for bad in numbers.damaged_signatures(&their_signature) {
                ensure!(
                    verify(&bad) == theirs.verify(&digest, &bad),
                    "{}: one takes a damaged signature: {bad:02x?} of {their_signature:02x?}",
                    both.name
                );
                damaged += 1;
            }

            for bad in numbers.damaged_points(&their_share) {
                let here = both.group.start()?.complete(&bad).is_ok();
                ensure!(
                    here == Key::public(both.theirs, &bad)?.is_some(),
                    "{}: one takes a damaged point: {bad:02x?} of {their_share:02x?}",
                    both.name
                );
                points += 1;
            }
        }
        println!("{:<16} {secrets:>8} {signatures:>11} {points:>8} {damaged:>8}", both.name);
        rows.push(json!({ "curve": both.name, "secrets": secrets, "signatures": signatures,
            "points": points, "damaged": damaged }));
    }
    println!("no difference from AWS-LC, {}", std::env::consts::ARCH);
    let name = format!("tls-oracle-{}", std::env::consts::ARCH);
    report(&name, &json!({ "name": name, "unit": "agreements", "rows": rows, "peer": "AWS-LC" }))
}
