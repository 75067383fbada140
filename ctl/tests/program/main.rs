//! The compiled program against a server on a real socket: what it writes, where, and how it ends.

mod charging;
mod daemon;
mod reverse;

use std::{os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use daemon::Daemon;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn program(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ladewartctl"));
    command.args(args).env("LADEWART_SOCKET", socket).env("TZ", "Europe/Berlin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(socket: &Path, args: &[&str]) -> Ended {
    let output =
        tokio::time::timeout(DEADLINE, program(socket, args).output()).await.expect("in time").unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// One sentence on the standard error and nothing else.
fn says(ended: &Ended, code: i32, sentence: &str) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    assert!(ended.err.starts_with("ladewartctl: ") && ended.err.contains(sentence), "{}", ended.err);
}

#[tokio::test]
async fn what_works_ends_with_0_and_is_silent_otherwise() {
    let daemon = Daemon::start();
    for args in [
        &["status"][..],
        &["limit", "set", "10 kW", "--id", "l1", "--for", "30min", "--reason", "test"],
        &["limit", "pmin"],
        &["limit", "sources"],
        &["limit", "failsafe", "4.2 kW", "--for", "2h"],
        &["limit", "clear", "l1"],
        &["limit", "clear", "unknown"],
        &["limit", "list", "--all"],
        &["evse", "list"],
        &["evse", "watch"],
        &["evse", "authorise", "wb1", "--tag", "04A2"],
        &["evse", "start", "wb1", "--tag", "04A2"],
        &["evse", "stop", "wb1"],
        &["evse", "unlock", "wb1"],
        &["evse", "reset", "wb1", "--hard"],
        &["evse", "disable", "wb1"],
        &["transaction", "list", "--running"],
        &["transaction", "export"],
        &["transaction", "export", "--format", "json", "--from", "2026-11-01 00:00"],
        &["transaction", "dead"],
        &["transaction", "retry", "wb1"],
        &["transaction", "discard", "wb1", "--number", "7"],
        &["meter", "list"],
        &["uplink", "status"],
        &["uplink", "test"],
        &["uplink", "trust", "--for", "5min"],
        &["journal", "verify"],
        &["journal", "export", "--to", "5"],
        &["version"],
        &["completions", "bash"],
        &["man"],
    ] {
        let ended = run(&daemon.socket, args).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(!ended.out.is_empty(), "{args:?}");
    }
}

/// `--then` gives a limit its steps; a time of day is the next one after the step before.
#[tokio::test]
async fn a_limit_takes_steps_in_their_order() {
    let daemon = Daemon::start();
    let set = ["-o", "json", "limit", "set", "10 kW", "--id", "l1", "--from", "2030-01-15T18:00:00+01:00"];
    let steps = ["--then", "2030-01-15T19:30:00+01:00=4200 W", "--then", "2030-01-15T20:00:00+01:00=8 kW"];
    let ended = run(&daemon.socket, &[&set[..], &steps[..], &["--for", "3h"][..]].concat()).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    let limit = &answer["limit"];
    assert_eq!(limit["watts"].to_string().trim_matches('"'), "10000", "{answer}");
    let told: Vec<_> = limit["steps"].as_array().unwrap().iter().collect();
    let watts: Vec<_> = told.iter().map(|s| s["watts"].to_string().trim_matches('"').to_owned()).collect();
    assert_eq!(watts, ["4200", "8000"], "{answer}");
    let from: Vec<_> = told.iter().map(|s| s["from"].as_str().unwrap_or_default()).collect();
    assert_eq!(from, ["2030-01-15T18:30:00Z", "2030-01-15T19:00:00Z"], "{answer}");
    assert_eq!(limit["valid_until"], "2030-01-15T20:00:00Z", "{answer}");

    // 17:00 comes after 18:00 only on the next day, and 16:00 on the one after.
    let steps = ["--then", "17:00=8 kW", "--then", "16:00=9 kW"];
    let ended = run(&daemon.socket, &[&set[..], &steps[..]].concat()).await;
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    let from = |n: usize| answer["limit"]["steps"][n]["from"].as_str().unwrap_or_default().to_owned();
    assert!(from(0) < from(1), "{answer}");

    for wrong in ["soon=8 kW", "19:00", "19:00=", "19:00=8 PS"] {
        let ended = run(&daemon.socket, &[&set[..], &["--then", wrong][..]].concat()).await;
        assert_eq!(ended.code, Some(2), "{wrong}: {}", ended.err);
    }
}

#[tokio::test]
async fn a_refusal_ends_with_1_and_a_denial_with_4() {
    let daemon = Daemon::start();
    says(&run(&daemon.socket, &["limit", "set", "1", "--id", "full"]).await, 1, "the storage is full");
    says(&run(&daemon.socket, &["limit", "set", "1", "--id", "denied"]).await, 4, "user 7 has no role here");
    says(&run(&daemon.socket, &["evse", "start", "away", "--tag", "A"]).await, 1, "is not connected");
    daemon.break_journal();
    let ended = run(&daemon.socket, &["journal", "verify"]).await;
    says(&ended, 1, "NOT intact from entry 5 on");
    assert_eq!(ended.out, "");
    let ended = run(&daemon.socket, &["-o", "json", "journal", "verify"]).await;
    says(&ended, 1, "NOT intact from entry 5 on");
    let verdict: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((verdict["intact"].as_bool(), verdict["broken_at"].as_u64()), (Some(false), Some(5)));
}

#[tokio::test]
async fn a_way_that_ends_early_is_shown_and_the_last_word_is_what_to_do() {
    let daemon = Daemon::start();
    let ended = run(&daemon.socket, &["uplink", "test", "emt"]).await;
    says(&ended, 1, "the way ends at the step \"proxy\". Ask the gateway administrator.");
    let lines: Vec<_> = ended.out.lines().collect();
    assert_eq!(lines[0], "link         ok      han0 is up, and separated from other networks");
    assert_eq!(lines[1], "proxy        FAILED  proxy reply 02 not allowed by ruleset");
    let ended = run(&daemon.socket, &["-o", "json", "uplink", "test", "emt"]).await;
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((last["step"].as_str(), last["ok"].as_bool()), (Some("UPLINK_STEP_PROXY"), Some(false)));
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2_and_calls_nobody() {
    let nowhere = Path::new("/nonexistent/socket");
    for args in [
        &[][..],
        &["limits"],
        &["limit", "set", "-5"],
        &["evse", "start", "wb1"],
        &["transaction", "discard", "wb1"],
        &["limit", "set", "10 PS"],
        &["status", "--output", "xml"],
    ] {
        let ended = run(nowhere, args).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
    }
    says(&run(nowhere, &["limit", "set", "5", "--for", "100000000h"]).await, 2, "--for");
}

#[tokio::test]
async fn without_a_daemon_it_ends_with_3_and_says_what_to_check() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let ended = run(&missing, &["status"]).await;
    says(&ended, 3, "missing.sock");
    assert!(ended.err.contains("systemctl status ladewartd"), "{}", ended.err);
    // The option wins over the environment.
    let other = dir.path().join("other.sock");
    says(&run(&missing, &["--socket", other.to_str().unwrap(), "status"]).await, 3, "other.sock");

    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    says(&run(&stale, &["status"]).await, 3, "nobody listens there any more");

    // The own version is told all the same.
    let ended = run(&missing, &["version"]).await;
    says(&ended, 3, "missing.sock");
    assert!(ended.out.starts_with("ladewartctl "), "{}", ended.out);
}

#[tokio::test]
async fn something_else_behind_the_socket_ends_with_3() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 512]] {
        let socket = dir.path().join(format!("{}.sock", answer.len()));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        };
        tokio::select! {
            ended = run(&socket, &["status"]) => says(&ended, 3, "ladewartctl: "),
            () = serve => {}
        }
    }
}

#[tokio::test]
async fn a_socket_that_one_may_not_open_ends_with_4() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("private.sock");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    if tokio::net::UnixStream::connect(&socket).await.is_ok() {
        // Root may open everything, and then there is nothing to see here.
        return;
    }
    says(&run(&socket, &["status"]).await, 4, "the group that owns it");
}

#[tokio::test]
async fn people_read_local_time_and_programs_utc() {
    let daemon = Daemon::start();
    let table = run(&daemon.socket, &["status"]).await.out;
    assert!(table.contains("2026-11-23 12:00:00 CET") && table.contains("Depot"), "{table}");
    let json: Value =
        serde_json::from_str(&run(&daemon.socket, &["status", "-o", "json"]).await.out).unwrap();
    assert_eq!((json["at"].as_str(), json["name"].as_str()), (Some("2026-11-23T11:00:00Z"), Some("Depot")));
    assert_eq!(json["evses"][0]["status"], "CONNECTOR_STATUS_CHARGING");
    assert_eq!(json["evses"][0]["queued_messages"], 0);
}

#[tokio::test]
async fn an_export_into_a_pipe_is_one_json_document_per_line() {
    let daemon = Daemon::start();
    let lines = run(&daemon.socket, &["journal", "export", "--from", "3", "--to", "700"]).await.out;
    let numbers: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (3..=700).collect::<Vec<_>>());
    let table = run(&daemon.socket, &["-o", "table", "journal", "export", "--to", "2"]).await.out;
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[tokio::test]
async fn a_reader_that_has_had_enough_ends_it_quietly() {
    let daemon = Daemon::start();
    for args in [&["journal", "export"][..], &["-o", "table", "journal", "export"], &["watch", "-o", "json"]]
    {
        let mut child = program(&daemon.socket, args).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next_line().await.unwrap().is_some(), "{args:?}");
        drop(lines);
        let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("in time").unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
    for args in [&["status"][..], &["completions", "zsh"], &["man"], &["limit", "list"], &["--help"]] {
        let mut child = program(&daemon.socket, args).spawn().unwrap();
        drop(child.stdout.take());
        let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("in time").unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test]
async fn watching_prints_a_line_per_change_and_ends_with_the_daemon() {
    let daemon = Daemon::start();
    let mut child = program(&daemon.socket, &["watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        async || tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("in time").unwrap();
    assert_eq!(next().await.unwrap(), "12:00:00 wb1 charging 16.0 A");
    daemon.setpoint(16_000);
    daemon.setpoint(6000);
    assert_eq!(next().await.unwrap(), "12:00:00 wb1 charging 6.0 A", "the same picture makes no line");
    daemon.stop();
    assert_eq!(next().await, None);
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("in time").unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), err.as_str()), (Some(1), "ladewartctl: the daemon is stopping\n"));
}

#[tokio::test]
async fn packages_get_a_page_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().to_str().unwrap();
    let ended = run(Path::new("/nonexistent"), &["man", "--dir", target]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    for page in ["ladewartctl.1", "ladewartctl-limit-set.1", "ladewartctl-journal-verify.1"] {
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
