//! What the curves cost: the daemon's own and AWS-LC's, side by side.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::{
    aws_lc::Key,
    oracle::{curves, key, point},
    report,
    tls::{self, Offer, Profile},
};

/// Milliseconds of processor time of one computation, the median of several runs.
fn median(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    const BATCH: u32 = 10;
    let now = || Ok::<_, nix::Error>(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?));
    let mut times = Vec::new();
    for _ in 0..11 {
        let from = now()?;
        for _ in 0..BATCH {
            work()?;
        }
        times.push((now()? - from).as_secs_f64() * 1e3 / f64::from(BATCH));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

pub(crate) fn run() -> anyhow::Result<()> {
    let provider = &tls::provider(Profile::Han(Offer { tls13: true, cbc: false }));
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
    println!("milliseconds of processor time, {}", std::env::consts::ARCH);
    let name = format!("tls-curves-{}", std::env::consts::ARCH);
    report(&name, &json!({ "name": name, "unit": "ms of processor time", "rows": rows, "peer": "AWS-LC" }))
}
