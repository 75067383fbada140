//! libFuzzer's program: runs the target that `LADEWART_FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("LADEWART_FUZZ_TARGET").unwrap_or_default();
    ladewart_fuzz::target(&name).unwrap_or_else(|| {
        let known: Vec<_> = ladewart_fuzz::TARGETS.iter().map(|(known, _)| *known).collect();
        panic!("LADEWART_FUZZ_TARGET=\"{name}\" is no target; there are: {}", known.join(", "))
    })
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
