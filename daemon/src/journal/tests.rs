use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::Writer;

fn entry(n: i64) -> Entry {
    Entry {
        at: Wall(1_795_000_000_000 + n),
        kind: if n % 2 == 0 { "limit.accepted" } else { "meter.lost" }.into(),
        subject: format!("s{n}"),
        actor: "uid:0".into(),
        body: json!({ "n": n }),
    }
}

struct Site {
    dir: tempfile::TempDir,
    journal: Journal,
    _writer: Writer,
}

impl Site {
    fn open(dir: tempfile::TempDir) -> Self {
        let (store, writer) = Store::open(dir.path(), MIGRATIONS).unwrap();
        Self { dir, journal: Journal::new(store), _writer: writer }
    }

    async fn with(entries: i64) -> Self {
        let site = Self::open(tempfile::tempdir().unwrap());
        site.journal.append((1..=entries).map(entry).collect()).await.unwrap().unwrap();
        site
    }

    /// What somebody with the file does, past the daemon.
    fn tamper(&self, sql: &str) {
        let db = Connection::open(self.dir.path().join("ladewart.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        db.execute_batch(sql).unwrap();
    }

    async fn verify(&self) -> Verdict {
        self.journal.verify().await.unwrap()
    }

    async fn numbers(&self, from: u64, to: u64, kind: &str, limit: usize) -> Vec<u64> {
        self.journal.page(from, to, kind, limit).await.unwrap().iter().map(|e| e.sequence).collect()
    }
}

#[tokio::test]
async fn an_untouched_journal_is_intact_and_grows_over_restarts() {
    let site = Site::open(tempfile::tempdir().unwrap());
    let empty = site.verify().await;
    assert!(empty.intact && empty.entries == 0, "{empty:?}");
    let first = site.journal.append(vec![entry(1), entry(2)]);
    let second = site.journal.append(vec![entry(3)]);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let before = site.verify().await;
    assert!(before.intact && before.entries == 3, "{before:?}");

    let Site { dir, journal, _writer: writer } = site;
    drop(journal);
    writer.join();
    let site = Site::open(dir);
    assert_eq!(site.verify().await, before);
    site.journal.append(vec![entry(4)]).await.unwrap().unwrap();
    let after = site.verify().await;
    assert!(after.intact && after.entries == 4 && after.head != before.head, "{after:?}");
    assert_eq!(site.numbers(0, 0, "", 100).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_is_read_is_what_was_handed_in() {
    let site = Site::open(tempfile::tempdir().unwrap());
    let wanted = Entry { body: json!({ "b": "ä\u{1f50c}\"", "a": [1, null] }), ..entry(1) };
    let odd = Entry { body: json!(7), ..entry(2) };
    site.journal.append(vec![wanted.clone(), odd]).await.unwrap().unwrap();
    let all = site.journal.page(0, 0, "", 10).await.unwrap();
    assert_eq!((all[0].at, &all[0].kind, &all[0].subject), (wanted.at, &wanted.kind, &wanted.subject));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&all[0].body).unwrap(), wanted.body);
    assert_eq!(all[1].body, r#"{"value":7}"#, "a body is always an object");
    assert_eq!(all[0].hash.len(), 32);
}

#[tokio::test]
async fn pages_keep_order_range_kind_and_size() {
    let site = Site::with(10).await;
    assert_eq!(site.numbers(0, 0, "", 4).await, [1, 2, 3, 4]);
    assert_eq!(site.numbers(5, 7, "", 100).await, [5, 6, 7]);
    assert_eq!(site.numbers(0, 0, "limit.accepted", 100).await, [2, 4, 6, 8, 10]);
    assert_eq!(site.numbers(3, 0, "meter.", 2).await, [3, 5]);
    assert_eq!(site.numbers(0, 0, "meter", 100).await, [0; 0], "without the dot a kind is meant exactly");
    assert_eq!(site.numbers(0, 0, "limit.%", 100).await, [0; 0], "a kind is no pattern");
    assert_eq!(site.numbers(11, 0, "", 100).await, [0; 0]);
    assert_eq!(site.numbers(u64::MAX, u64::MAX, "", 100).await, [0; 0]);
}

#[tokio::test]
async fn a_rare_kind_is_found_beyond_one_span() {
    let site = Site::with(2 * SPAN).await;
    let rare = Entry { kind: "daemon.started".into(), ..entry(0) };
    site.journal.append(vec![rare]).await.unwrap().unwrap();
    let number = u64::try_from(2 * SPAN + 1).unwrap();
    assert_eq!(site.numbers(0, 0, "daemon.", 10).await, [number]);
}

/// What is done to ten entries, the number that is named then, and what is said about it.
const TAMPERING: &[(&str, u64, &str)] = &[
    ("UPDATE journal SET at = at + 1 WHERE sequence = 5", 5, "changed"),
    ("UPDATE journal SET kind = 'limit.cleared' WHERE sequence = 5", 5, "changed"),
    ("UPDATE journal SET subject = 'other' WHERE sequence = 1", 1, "changed"),
    ("UPDATE journal SET actor = 'uid:1' WHERE sequence = 10", 10, "changed"),
    ("UPDATE journal SET body = '{\"n\": 5}' WHERE sequence = 5", 5, "changed"),
    ("UPDATE journal SET body = CAST(x'ff' AS TEXT) WHERE sequence = 5", 5, "changed"),
    ("UPDATE journal SET hash = zeroblob(32) WHERE sequence = 5", 5, "changed"),
    ("UPDATE journal SET hash = x'' WHERE sequence = 5", 5, "changed"),
    ("DELETE FROM journal WHERE sequence = 5", 5, "entry 5 is missing"),
    ("DELETE FROM journal WHERE sequence BETWEEN 5 AND 7", 5, "entries 5 to 7 are missing"),
    ("DELETE FROM journal WHERE sequence <= 3", 1, "entries 1 to 3 are missing"),
    ("DELETE FROM journal WHERE sequence > 8", 9, "entries 9 to 10 are missing"),
    ("DELETE FROM journal", 1, "entries 1 to 10 are missing"),
    (
        // Two entries change places, hashes and all.
        "UPDATE journal SET sequence = -1 WHERE sequence = 4;
         UPDATE journal SET sequence = 4 WHERE sequence = 6;
         UPDATE journal SET sequence = 6 WHERE sequence = -1",
        4,
        "changed",
    ),
    (
        "DELETE FROM journal WHERE sequence = 5;
         UPDATE journal SET sequence = sequence - 1 WHERE sequence > 5",
        5,
        "changed",
    ),
    ("UPDATE journal SET sequence = 0 WHERE sequence = 5", 1, "before the first"),
    ("UPDATE journal SET sequence = -5 WHERE sequence = 5", 1, "before the first"),
    (
        "INSERT INTO journal SELECT 11, at, kind, subject, actor, body, hash FROM journal WHERE sequence = 10",
        11,
        "changed",
    ),
    ("UPDATE journal_head SET sequence = 8", 9, "should end with entry 8"),
    ("UPDATE journal_head SET sequence = 12", 11, "entries 11 to 12 are missing"),
    ("UPDATE journal_head SET hash = zeroblob(32)", 10, "not the one that the head names"),
    (
        "UPDATE journal_start SET sequence = 3, hash = (SELECT hash FROM journal WHERE sequence = 3);
         DELETE FROM journal WHERE sequence <= 3",
        1,
        "entries 1 to 3 are missing, and no entry says that they were taken off",
    ),
    ("UPDATE journal_start SET sequence = 3", 4, "before the first"),
    ("DELETE FROM journal_head", 11, "the head that names the last entry is gone"),
];

#[tokio::test]
async fn every_way_of_tampering_is_located() {
    for (sql, broken_at, problem) in TAMPERING {
        let site = Site::with(10).await;
        assert!(site.verify().await.intact);
        site.tamper(sql);
        let verdict = site.verify().await;
        assert!(!verdict.intact, "{sql}");
        assert_eq!(verdict.broken_at, *broken_at, "{sql}: {}", verdict.problem);
        assert!(verdict.problem.contains(problem), "{sql}: {}", verdict.problem);
    }
}

#[tokio::test]
async fn a_recomputed_entry_breaks_the_next_one() {
    let site = Site::with(10).await;
    let previous = site.journal.page(4, 4, "", 1).await.unwrap()[0].hash.clone();
    let forged = chain::Content {
        sequence: 5,
        at: entry(5).at.0,
        kind: b"meter.lost",
        subject: b"forged",
        actor: b"uid:0",
        body: br#"{"n":5}"#,
    };
    let hash = forged.hash(&previous).iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
    site.tamper(&format!("UPDATE journal SET subject = 'forged', hash = x'{hash}' WHERE sequence = 5"));
    assert_eq!(site.verify().await.broken_at, 6);
}

#[tokio::test]
async fn a_cut_tail_stays_noticed_when_the_journal_goes_on() {
    let site = Site::with(10).await;
    site.tamper("DELETE FROM journal WHERE sequence > 8");
    site.journal.append(vec![entry(11)]).await.unwrap().unwrap();
    let verdict = site.verify().await;
    assert_eq!((verdict.broken_at, verdict.entries), (9, 8), "{}", verdict.problem);
}

#[tokio::test]
async fn without_its_head_the_journal_takes_nothing() {
    let site = Site::with(2).await;
    site.tamper("DELETE FROM journal_head");
    let error = site.journal.append(vec![entry(3)]).await.unwrap().unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("head")), "{error}");
    assert_eq!(site.numbers(0, 0, "", 10).await, [1, 2]);
}

#[tokio::test]
async fn a_damaged_file_is_located_and_never_called_intact() {
    let site = Site::with(3000).await;
    site.tamper("PRAGMA wal_checkpoint(TRUNCATE)");
    let Site { dir, journal, _writer: writer } = site;
    drop(journal);
    writer.join();
    let path = dir.path().join("ladewart.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let site = Site::open(dir);
    let verdict = site.verify().await;
    assert!(!verdict.intact && verdict.broken_at > 1 && verdict.broken_at < 3000, "{verdict:?}");
}

#[tokio::test]
async fn ten_thousand_entries_verify_while_others_are_appended() {
    let site = Site::with(10_000).await;
    let deadline = std::time::Duration::from_secs(10);
    let more = async {
        for n in 0..20 {
            site.journal.append(vec![entry(10_001 + n)]).await.unwrap().unwrap();
        }
    };
    let (verdict, ()) =
        tokio::time::timeout(deadline, async { tokio::join!(site.verify(), more) }).await.expect("in time");
    assert!(verdict.intact && verdict.entries >= 10_000, "{verdict:?}");
}

#[tokio::test]
async fn signatures_are_part_of_the_chain_and_a_false_one_is_located() {
    let site = Site::with(10).await;
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::open(keys.path()).unwrap();
    assert!(site.journal.sign(&signer, Wall(1)).await.unwrap());
    assert!(!site.journal.sign(&signer, Wall(1)).await.unwrap(), "a signature needs none");
    site.journal.append(vec![entry(12)]).await.unwrap().unwrap();
    let again = Signer::open(keys.path()).unwrap();
    assert_eq!(again.fingerprint(), signer.fingerprint(), "the key is kept");
    assert!(site.journal.sign(&again, Wall(1)).await.unwrap());
    let verdict = site.verify().await;
    assert!(verdict.intact && verdict.signed == 12, "{verdict:?}");
    assert_eq!(verdict.keys, [signer.fingerprint()]);
    // Somebody without the key recomputes the chain from entry 5 on, the old signature's hash and all.
    let db = Connection::open(site.dir.path().join("ladewart.db")).unwrap();
    let (mut previous, all) = {
        let rows = site.journal.page(4, 0, "", 100).await.unwrap();
        (rows[0].hash.clone(), rows[1..].to_vec())
    };
    for row in all {
        let subject = if row.sequence == 5 { "forged" } else { &row.subject };
        let mut body = row.body.clone();
        if row.kind == sign::SIGNED {
            let mut value: serde_json::Value = serde_json::from_str(&body).unwrap();
            value["hash"] = json!(crate::identity::hex(&previous));
            body = value.to_string();
        }
        let content = chain::Content {
            sequence: i64::try_from(row.sequence).unwrap(),
            at: row.at.0,
            kind: row.kind.as_bytes(),
            subject: subject.as_bytes(),
            actor: row.actor.as_bytes(),
            body: body.as_bytes(),
        };
        let hash = content.hash(&previous).to_vec();
        db.execute(
            "UPDATE journal SET subject = ?2, body = ?3, hash = ?4 WHERE sequence = ?1",
            params![i64::try_from(row.sequence).unwrap(), subject, body, hash],
        )
        .unwrap();
        previous = hash;
    }
    db.execute("UPDATE journal_head SET hash = ?1", [previous]).unwrap();
    let verdict = site.verify().await;
    assert_eq!((verdict.broken_at, verdict.signed), (11, 0), "{verdict:?}");
    assert!(verdict.problem.contains("its signature does not fit"), "{}", verdict.problem);
}

#[tokio::test]
async fn what_is_over_is_taken_off_and_the_rest_stays_provable() {
    let site = Site::with(10).await;
    let first = Wall(1_795_000_000_000);
    assert_eq!(site.journal.rotate(Wall(0), first).await.unwrap(), 0, "nothing is old enough");
    assert_eq!(site.journal.rotate(Wall(first.0 + 5), first).await.unwrap(), 4);
    let verdict = site.verify().await;
    assert!(verdict.intact, "{verdict:?}");
    assert_eq!((verdict.from, verdict.entries), (5, 7));
    assert_eq!(site.numbers(0, 0, "", 100).await, [5, 6, 7, 8, 9, 10, 11]);
    let rows = site.journal.page(5, 6, "", 2).await.unwrap();
    assert_eq!((rows[0].previous.len(), &rows[1].previous), (32, &rows[0].hash));
    // Again, and once more when everything is over: the last entry stays.
    assert_eq!(site.journal.rotate(Wall(first.0 + 7), first).await.unwrap(), 2);
    assert!(site.verify().await.intact);
    assert!(site.journal.rotate(Wall(i64::MAX), first).await.unwrap() > 0);
    let verdict = site.verify().await;
    assert!(verdict.intact && verdict.entries > 0, "{verdict:?}");
    site.tamper("DELETE FROM journal WHERE sequence = (SELECT min(sequence) FROM journal)");
    assert!(!site.verify().await.intact);
}

#[tokio::test]
async fn one_subject_is_found_among_many() {
    let site = Site::with(100).await;
    let found = site.journal.page_of(0, 0, "", "s7", 10).await.unwrap();
    assert_eq!(found.iter().map(|e| e.sequence).collect::<Vec<_>>(), [7]);
    assert!(site.journal.page_of(0, 0, "limit.", "s7", 10).await.unwrap().is_empty());
    assert!(site.journal.page_of(8, 0, "", "s7", 10).await.unwrap().is_empty());
}

fn random_entry() -> impl Strategy<Value = Entry> {
    let body = proptest::collection::btree_map(
        ".{0,8}",
        prop_oneof![any::<i64>().prop_map(|n| json!(n)), ".{0,8}".prop_map(|s| json!(s))],
        0..4,
    );
    (any::<i64>(), "[a-z.]{0,12}", ".{0,12}", ".{0,12}", body).prop_map(|(at, kind, subject, actor, body)| {
        Entry { at: Wall(at), kind, subject, actor, body: serde_json::to_value(body).unwrap() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any entries make an intact chain, however they are cut into batches; one changed bit of any stored text
    /// or hash is located at its entry.
    #[test]
    fn random_entries_verify_and_one_flipped_bit_is_located(
        batches in proptest::collection::vec(proptest::collection::vec(random_entry(), 0..5), 1..6),
        victim in any::<proptest::sample::Index>(),
        column in 0_usize..5,
        bit in any::<proptest::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = Site::open(tempfile::tempdir().unwrap());
            let count = batches.iter().map(Vec::len).sum::<usize>();
            for batch in batches {
                site.journal.append(batch).await.unwrap().unwrap();
            }
            let verdict = site.verify().await;
            prop_assert!(verdict.intact, "{:?}", verdict);
            prop_assert_eq!(verdict.entries, u64::try_from(count).unwrap());
            if count == 0 {
                return Ok(());
            }
            let number = u64::try_from(victim.index(count)).unwrap() + 1;
            let name = ["kind", "subject", "actor", "body", "hash"][column];
            let row = site.journal.page(number, number, "", 1).await.unwrap().remove(0);
            let mut bytes = match column {
                0 => row.kind.into_bytes(),
                1 => row.subject.into_bytes(),
                2 => row.actor.into_bytes(),
                3 => row.body.into_bytes(),
                _ => row.hash,
            };
            if bytes.is_empty() {
                return Ok(());
            }
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hex = bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
            let value = if column == 4 { format!("x'{hex}'") } else { format!("CAST(x'{hex}' AS TEXT)") };
            site.tamper(&format!("UPDATE journal SET {name} = {value} WHERE sequence = {number}"));
            prop_assert_eq!(site.verify().await.broken_at, number);
            Ok(())
        })?;
    }
}
