//! What has been acknowledged survives the death of the process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use local::api::{Selection, Store, object};
use serde_json::json;

/// Not a test of its own: what [`acknowledged_writes_survive_kill_9`] starts, in a directory of its own, and kills.
#[test]
#[ignore = "it is started by the other test and writes until it is killed"]
fn write_until_killed() {
    let store = Store::open(Path::new(".")).expect("a store");
    let mut out = std::io::stdout().lock();
    for n in 0..1_000_000 {
        let map =
            json!({"metadata": {"name": format!("m{n}"), "namespace": "default"}, "data": {"n": "x".repeat(n % 3000)}});
        let made = store.create("configmaps", map).expect("created");
        writeln!(out, "acknowledged {} {}", object::name(&made), object::version(&made)).expect("written");
        out.flush().expect("written");
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut last = 0;
    for round in [5, 57, 400] {
        let journal = directory.path().join("journal");
        let _ = std::fs::remove_file(&journal);
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["write_until_killed", "--exact", "--ignored", "--nocapture"])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut acknowledged = vec![];
        for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
            let line = line.expect("a line");
            let mut words = line.split_whitespace().skip_while(|word| *word != "acknowledged").skip(1);
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                acknowledged.push((name.to_owned(), version.parse::<u64>().expect("a version")));
            }
            if acknowledged.len() == round {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
        let store = Store::open(directory.path()).expect("opens again");
        for (name, version) in &acknowledged {
            let found = store.get("configmaps", "default", name).expect("kept");
            assert_eq!(object::version(&found), *version);
        }
        let kept = store.list("configmaps", &Selection::namespace("default")).items.len();
        assert!(kept >= acknowledged.len());
        last = last.max(kept);
    }
    assert!(last >= 400);
}
