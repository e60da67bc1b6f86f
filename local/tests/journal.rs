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

fn config_map(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "data": {"name": name}})
}

/// A store whose journal is damaged in the middle: one byte of the object `b` is another now.
fn damaged() -> (tempfile::TempDir, u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    store.create("namespaces", json!({"metadata": {"name": "shop"}})).expect("created");
    for name in ["a", "b", "c"] {
        store.create("configmaps", config_map(name)).expect("created");
    }
    let version = store.version();
    drop(store);
    let path = directory.path().join("journal");
    let mut bytes = std::fs::read(&path).expect("the journal");
    let data = br#""data":{"name":"b"}"#;
    let at = bytes.windows(data.len()).position(|it| it == data).expect("the object b");
    bytes[at] = b'?';
    std::fs::write(&path, bytes).expect("written");
    (directory, version)
}

#[test]
fn a_damaged_journal_is_refused_and_recovering_keeps_a_copy_and_everything_that_can_be_read() {
    let (directory, version) = damaged();
    let before = std::fs::read(directory.path().join("journal")).expect("the journal");
    let refused = Store::open(directory.path()).err().expect("it is damaged").to_string();
    for word in ["is damaged at byte", "not what its checksum says", "nothing was changed", "--recover"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert_eq!(std::fs::read(directory.path().join("journal")).expect("the journal"), before);

    let saved = Store::recover(directory.path()).expect("recovered");
    let copy = saved.copy.expect("a copy");
    assert_eq!(std::fs::read(copy).expect("the copy"), before);
    assert_eq!(saved.lost.len(), 1, "{:?}", saved.lost);
    assert!(refused.contains(&format!("byte {}", saved.lost[0].offset)), "{refused}");

    let store = Store::open(directory.path()).expect("it opens again");
    for name in ["a", "c"] {
        let found = store.get("configmaps", "shop", name).expect("it was not damaged");
        assert_eq!(found["data"]["name"], name);
    }
    assert!(store.get("configmaps", "shop", "b").expect_err("it is lost").is_not_found());
    let made = store.create("configmaps", config_map("b")).expect("it goes on");
    assert!(object::version(&made) > version, "versions only grow");
    drop(store);
    let again = Store::recover(directory.path()).expect("it is sound");
    assert!(again.copy.is_none() && again.lost.is_empty(), "what is sound is left alone");
}

#[test]
fn with_its_first_line_or_a_namespace_lost_the_rest_is_there() {
    let (directory, _) = damaged();
    let path = directory.path().join("journal");
    let mut bytes = std::fs::read(&path).expect("the journal");
    bytes[0] = b'?';
    let namespace = br#""name":"shop","labels""#;
    let at = bytes.windows(namespace.len()).position(|it| it == namespace);
    let at = at.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&bytes)));
    bytes[at] = b'?';
    std::fs::write(&path, bytes).expect("written");
    let saved = Store::recover(directory.path()).expect("recovered");
    assert_eq!(saved.lost.len(), 3, "{:?}", saved.lost);
    let store = Store::open(directory.path()).expect("it opens again");
    assert!(store.get("namespaces", "", "shop").is_ok(), "what is in it has a namespace again");
    assert!(store.get("configmaps", "shop", "c").is_ok());
    store.create("configmaps", config_map("d")).expect("it goes on");
}

#[test]
fn an_export_holds_what_its_user_made_and_can_be_applied_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    store.create("namespaces", json!({"metadata": {"name": "shop"}})).expect("created");
    store.create("configmaps", config_map("a")).expect("created");
    let spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
    store.create("services", json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec})).expect("created");
    let owned = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"}]);
    let mut second = config_map("owned");
    second["metadata"]["ownerReferences"] = owned;
    store.create("configmaps", second).expect("created");
    // It is read beside a running store.
    let exported = local::api::export::read(directory.path()).expect("readable");
    let names: Vec<_> =
        exported.iter().map(|it| format!("{} {}", it["kind"], object::name(it)).replace('"', "")).collect();
    assert_eq!(names, ["Namespace shop", "ConfigMap a", "Service a"]);
    for found in &exported {
        let text = found.to_string();
        assert!(!text.contains("uid") && !text.contains("resourceVersion") && !text.contains("clusterIP\""), "{text}");
    }
    let other = tempfile::tempdir().expect("a directory");
    let store = Store::open(other.path()).expect("a store");
    for found in exported {
        let resource = format!("{}s", found["kind"].as_str().expect("a kind").to_lowercase());
        store.create(&resource, found).expect("what was exported can be created");
    }
}
