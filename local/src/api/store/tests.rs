use std::io::Write;

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Arc<Store>) {
    let directory = TempDir::new().expect("a directory");
    let store = Store::open(directory.path()).expect("a new store");
    (directory, Arc::new(store))
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"key": value}})
}

fn make(store: &Store, name: &str) -> Arc<Value> {
    store.create("configmaps", config_map(name, "1")).expect("created")
}

#[test]
fn a_new_object_gets_identity_and_version() {
    let (_directory, store) = store();
    let made = make(&store, "a");
    assert_eq!(made["apiVersion"], "v1");
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(object::uid(&made).len(), 36);
    assert_eq!(object::version(&made), store.version());
    assert_eq!(
        store.create("configmaps", config_map("a", "2")).expect_err("there already").reason,
        Reason::AlreadyExists
    );
    assert_eq!(store.get("configmaps", "default", "a").expect("found"), made);
}

#[test]
fn generated_names_are_the_prefix_and_five_letters() {
    let (_directory, store) = store();
    let made = store
        .create("configmaps", json!({"metadata": {"generateName": "a-", "namespace": "default"}}))
        .expect("created");
    assert!(object::name(&made).starts_with("a-") && object::name(&made).len() == 7);
}

#[test]
fn nonsense_names_and_unknown_namespaces_and_resources_are_refused() {
    let (_directory, store) = store();
    for name in ["", "A", "-a", "a_b", "a..b"] {
        let refused = store.create("configmaps", config_map(name, "")).expect_err(name);
        assert_eq!(refused.reason, Reason::Invalid, "{name}");
    }
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "nowhere"}});
    assert!(store.create("configmaps", elsewhere).expect_err("no such namespace").is_not_found());
    assert!(
        store.create("things.example.com", json!({"metadata": {"name": "a"}})).expect_err("unknown").is_not_found()
    );
    let labels = json!({"metadata": {"name": "a", "namespace": "default", "labels": {"a": 1}}});
    assert_eq!(store.create("configmaps", labels).expect_err("labels are texts").reason, Reason::Invalid);
}

#[test]
fn an_update_from_an_old_version_conflicts() {
    let (_directory, store) = store();
    let first = make(&store, "a");
    let mut newer = (*first).clone();
    newer["data"]["key"] = json!("2");
    let second = store.update("configmaps", newer.clone()).expect("updated");
    assert_eq!(second["metadata"]["generation"], 2);
    assert!(store.update("configmaps", newer.clone()).expect_err("old version").is_conflict());
    metadata(&mut newer).remove("resourceVersion");
    let third = store.update("configmaps", newer).expect("unconditional");
    assert_eq!(third, second, "a write without a change is none");
}

#[test]
fn status_is_written_apart() {
    let (_directory, store) = store();
    let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    store.create("pods", pod.clone()).expect("created");
    let patched =
        store.patch_status("pods", "default", "p", &json!({"status": {"phase": "Running"}})).expect("patched");
    assert_eq!(patched["metadata"]["generation"], 1);
    let mut update = pod;
    update["status"] = json!({"phase": "Failed"});
    update["metadata"]["labels"] = json!({"a": "b"});
    let updated = store.update("pods", update).expect("updated");
    assert_eq!(updated["status"]["phase"], "Running");
    assert_eq!(object::label(&updated, "a"), Some("b"));
}

#[test]
fn a_pod_ends_after_its_grace_and_a_finalizer_holds_an_object() {
    let (_directory, store) = store();
    let spec = json!({"nodeName": "local", "containers": [{"name": "c", "image": "i"}]});
    store.create("pods", json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})).expect("created");
    let pending = store.delete("pods", "default", "p", &DeleteOptions::default()).expect("begun");
    assert!(matches!(&pending, Deleted::Pending(pod) if pod["metadata"]["deletionGracePeriodSeconds"] == 30));
    let gone = store.delete("pods", "default", "p", &DeleteOptions::now()).expect("ended");
    assert!(matches!(gone, Deleted::Gone(_)));

    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create("configmaps", held).expect("created");
    let pending = store.delete("configmaps", "default", "held", &DeleteOptions::default()).expect("begun");
    assert!(matches!(pending, Deleted::Pending(_)));
    store.patch("configmaps", "default", "held", &json!({"metadata": {"finalizers": null}})).expect("released");
    assert!(store.get("configmaps", "default", "held").expect_err("gone").is_not_found());
}

#[tokio::test]
async fn a_watch_sees_every_change_after_its_version() {
    let (_directory, store) = store();
    let first = make(&store, "a");
    let mut watch = store.watch("configmaps", object::version(&first)).expect("a watch");
    make(&store, "b");
    store.patch("configmaps", "default", "a", &json!({"data": {"key": "2"}})).expect("patched");
    store.create("secrets", json!({"metadata": {"name": "s", "namespace": "default"}})).expect("created");
    store.delete("configmaps", "default", "b", &DeleteOptions::default()).expect("deleted");
    let mut seen = vec![];
    for _ in 0..3 {
        let event = watch.next().await.expect("an event");
        seen.push((event.change, object::name(&event.object).to_owned(), event.previous.is_some()));
    }
    assert_eq!(
        seen,
        [(Change::Added, "b".into(), false), (Change::Modified, "a".into(), true), (Change::Deleted, "b".into(), true)]
    );
    assert!(watch.try_next().expect("still good").is_none());
    assert_eq!(watch.version(), store.version());
}

#[test]
fn a_watch_from_before_the_history_has_expired() {
    let (_directory, store) = store();
    let first = object::version(&make(&store, "a"));
    let mut slow = store.watch("configmaps", first).expect("a watch");
    for n in 0..=HISTORY {
        store.patch("configmaps", "default", "a", &json!({"data": {"key": n.to_string()}})).expect("patched");
    }
    assert_eq!(slow.try_next().expect_err("too slow").reason, Reason::Expired);
    assert_eq!(store.watch("configmaps", first).err().expect("too old").reason, Reason::Expired);
    assert!(store.watch("configmaps", store.version()).is_ok());
}

#[test]
fn everything_is_there_after_reopening_and_versions_go_on() {
    let (directory, store) = store();
    make(&store, "a");
    let kept = make(&store, "b");
    store.delete("configmaps", "default", "a", &DeleteOptions::default()).expect("deleted");
    let version = store.version();
    drop(store);
    let store = Arc::new(Store::open(directory.path()).expect("reopened"));
    assert_eq!(store.version(), version);
    assert_eq!(store.get("configmaps", "default", "b").expect("kept"), kept);
    assert!(store.get("configmaps", "default", "a").is_err());
    let mut watch = store.watch("configmaps", object::version(&kept)).expect("history is kept too");
    assert_eq!(watch.try_next().expect("good").expect("the deletion").change, Change::Deleted);
    assert!(object::version(&make(&store, "c")) > version);
}

#[test]
fn compaction_keeps_objects_and_versions_and_drops_history() {
    let (directory, store) = store();
    let first = make(&store, "a");
    for n in 0..100 {
        store.patch("configmaps", "default", "a", &json!({"data": {"key": n.to_string()}})).expect("patched");
    }
    let journal = directory.path().join("journal");
    let before = std::fs::metadata(&journal).expect("a journal").len();
    store.compact().expect("compacted");
    assert!(std::fs::metadata(&journal).expect("a journal").len() < before / 10);
    let last = make(&store, "b");
    drop(store);
    let store = Arc::new(Store::open(directory.path()).expect("reopened"));
    assert_eq!(store.get("configmaps", "default", "a").expect("kept")["data"]["key"], "99");
    assert_eq!(store.version(), object::version(&last));
    assert!(store.watch("configmaps", object::version(&first)).is_err());
    assert!(store.watch("configmaps", object::version(&last) - 1).is_ok());
}

#[test]
fn a_torn_tail_is_cut_off_at_every_length() {
    let (directory, store) = store();
    make(&store, "a");
    let journal = directory.path().join("journal");
    let whole = std::fs::metadata(&journal).expect("a journal").len();
    make(&store, "b");
    drop(store);
    let bytes = std::fs::read(&journal).expect("readable");
    let end = usize::try_from(whole).expect("small");
    for cut in [end + 1, end + 9, end + 40, bytes.len() - 1] {
        std::fs::write(&journal, &bytes[..cut]).expect("written");
        let store = Store::open(directory.path()).expect("opens without the torn line");
        assert!(store.get("configmaps", "default", "a").is_ok());
        assert!(store.get("configmaps", "default", "b").is_err());
        drop(store);
        assert_eq!(std::fs::metadata(&journal).expect("a journal").len(), whole);
    }
}

#[test]
fn damage_in_the_middle_is_refused_with_the_way_out() {
    let (directory, store) = store();
    make(&store, "a");
    make(&store, "b");
    drop(store);
    let journal = directory.path().join("journal");
    let mut bytes = std::fs::read(&journal).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&journal, &bytes).expect("written");
    let refused = Store::open(directory.path()).err().expect("damaged").to_string();
    assert!(refused.contains("damaged at byte") && refused.contains("--recover"), "{refused}");
    assert_eq!(std::fs::read(&journal).expect("readable"), bytes, "nothing was changed");
    let saved = Store::recover(directory.path()).expect("recovered");
    assert!(saved.copy.is_some() && !saved.lost.is_empty());
    Store::open(directory.path()).expect("opens after what the message says");
}

#[test]
fn a_journal_in_use_or_of_another_kind_is_refused() {
    let (directory, store) = store();
    assert!(matches!(Store::open(directory.path()), Err(OpenError::InUse { .. })));
    drop(store);
    let mut file = std::fs::File::create(directory.path().join("journal")).expect("writable");
    file.write_all(b"hello\n").expect("written");
    assert!(matches!(Store::open(directory.path()), Err(OpenError::Damaged { offset: 0, .. })));
}

#[test]
fn an_object_that_is_too_large_is_refused_and_nothing_is_written() {
    let (directory, store) = store();
    let before = (store.version(), std::fs::metadata(directory.path().join("journal")).expect("a journal").len());
    let refused = store.create("configmaps", config_map("large", &"x".repeat(3 << 20))).expect_err("too large");
    assert_eq!(refused.reason, Reason::RequestEntityTooLarge);
    assert_eq!(
        before,
        (store.version(), std::fs::metadata(directory.path().join("journal")).expect("a journal").len())
    );
}

#[test]
fn services_get_addresses_of_their_own_and_keep_them() {
    let (_directory, store) = store();
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    let ports = json!([{"port": 80}]);
    let address = |service: &Value| object::text(service, "/spec/clusterIP").to_owned();
    let first = store.create("services", service("a", json!({"ports": ports}))).expect("created");
    assert!(address(&first).starts_with("10.96."), "{first}");
    let headless = store.create("services", service("b", json!({"clusterIP": "None"}))).expect("created");
    assert_eq!(address(&headless), "None");
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    assert_eq!(address(&store.create("services", service("c", external)).expect("created")), "");
    let taken = json!({"clusterIP": address(&first), "ports": ports});
    assert_eq!(store.create("services", service("d", taken)).expect_err("taken").reason, Reason::Invalid);
    let outside = json!({"clusterIP": "192.0.2.1", "ports": ports});
    assert_eq!(store.create("services", service("d", outside)).expect_err("not ours").reason, Reason::Invalid);
    let updated = store.update("services", service("a", json!({"ports": [{"port": 81}]}))).expect("updated");
    assert_eq!(address(&updated), address(&first));
    let moved = json!({"clusterIP": "10.96.9.9", "ports": ports});
    assert_eq!(store.update("services", service("a", moved)).expect_err("kept").reason, Reason::Invalid);
    store.delete("services", "default", "a", &DeleteOptions::default()).expect("deleted");
    let again = store.create("services", service("a", json!({"ports": ports}))).expect("created");
    assert_eq!(address(&again), address(&first), "the address depends on the name");
}

#[test]
fn events_are_bounded() {
    let (_directory, store) = store();
    for _ in 0..EVENTS + 5 {
        let event = json!({"metadata": {"generateName": "e-", "namespace": "default"}});
        store.create("events", event).expect("created");
    }
    assert_eq!(store.list("events", &Selection::all()).items.len(), EVENTS);
}

#[test]
fn a_definition_makes_its_resource_servable_at_once() {
    let (_directory, store) = store();
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}}],
        },
    });
    store.create(DEFINITIONS, definition).expect("created");
    let thing = json!({"metadata": {"name": "a", "namespace": "default"}, "spec": {"size": 1}});
    let made = store.create("things.example.com", thing).expect("created");
    assert_eq!(made["apiVersion"], "example.com/v1");
    assert!(store.resources().by_kind("example.com/v1", "Thing").is_some_and(|it| it.has_status()));
}
