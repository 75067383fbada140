//! A configuration that cannot be used: exit code 64, with file, line, field and what would be right.

use std::os::unix::fs::PermissionsExt as _;

use ladewart_lab::{
    connection::{L123, L231},
    process::Daemon,
    site::{EvsePlan, Lab, Plan},
};

/// What is changed, into what, the field that the message names, and words that it holds.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("fuse = \"63 A\"", "fuze = \"63 A\"", "fuze", "unknown field"),
    ("fuse = \"63 A\"", "fuse = \"63 kW\"", "fuse", "63 kW"),
    ("fuse = \"63 A\"", "fuse = 63", "fuse", "16 A"),
    ("id = \"yard\"", "id = \"yard\"\nidentity = \"carport\"", "identity", "carport"),
    ("lease = \"10 s\"", "lease = \"10 x\"", "lease", "10 x"),
    ("lease = \"10 s\"", "lease = \"1 ms\"", "lease", "out of range"),
    ("certificate = \"cls.pem\"", "certificate = \"missing.pem\"", "certificate", "missing.pem"),
    ("key = \"cls.key\"", "key = \"garbage.key\"", "key", "garbage.key"),
    ("trust = { pin = \"", "trust = { pin = \"zz", "pin", "64 hexadecimal digits"),
    ("meter = \"grid\"", "meter = \"cellar\"", "meter", "cellar"),
    ("device = \"eastron-sdm630\"", "device = \"abacus\"", "device", "abacus"),
    ("url = \"ws://", "url = \"http://", "url", "ws://"),
    ("mode = \"socks5\"", "mode = \"carrier pigeon\"", "mode", "carrier pigeon"),
];

async fn lab() -> anyhow::Result<Lab> {
    Lab::prepare(Plan {
        evses: vec![EvsePlan::new("carport", L123, 32), EvsePlan::new("yard", L231, 32)],
        ..Plan::default()
    })
    .await
}

#[tokio::test]
async fn each_mistake_is_named_with_file_line_and_field() -> anyhow::Result<()> {
    let lab = lab().await?;
    lab.write("garbage.key", "no key at all\n")?;
    for (old, new, field, words) in CASES {
        let good = lab.configuration();
        assert!(good.contains(old), "the configuration has no {old}");
        let line = good[..good.find(old).unwrap_or(0)].lines().count().max(1);
        let line =
            line + new.lines().count() - 1 + usize::from(good[..good.find(old).unwrap_or(0)].ends_with('\n'));
        let file = lab.write("wrong.toml", &good.replacen(old, new, 1))?;
        let (code, output) = Daemon::refused(&file).await?;
        assert_eq!(code, Some(64), "{new}: {output}");
        let place = format!("wrong.toml:{line}: ");
        assert!(output.contains(&place), "{new}: {place:?} is not in: {output}");
        assert!(output.contains(field) && output.contains(words), "{new}: {output}");
        assert!(!output.contains("panicked"), "{output}");
    }
    Ok(())
}

#[tokio::test]
async fn files_that_are_not_there_or_not_readable_are_named() -> anyhow::Result<()> {
    let lab = lab().await?;
    let (code, output) = Daemon::refused(&lab.path("nowhere.toml")).await?;
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("nowhere.toml"), "{output}");
    if nix::unistd::Uid::effective().is_root() {
        // Root reads everything; a directory it cannot read as a file.
        std::fs::create_dir(lab.path("locked.key"))?;
    } else {
        let locked = lab.write("locked.key", "x")?;
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000))?;
    }
    let file = lab.write("wrong.toml", &lab.configuration().replace("cls.key", "locked.key"))?;
    let (code, output) = Daemon::refused(&file).await?;
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("key") && output.contains("locked.key"), "{output}");
    Ok(())
}

#[tokio::test]
async fn the_unchanged_configuration_is_accepted() -> anyhow::Result<()> {
    let mut lab = lab().await?;
    lab.start_daemon().await?;
    let (version, api) = lab.operator.version().await?;
    assert!(!version.is_empty());
    assert_eq!(api, "ladewart.v1");
    lab.finish().await?;
    Ok(())
}
