use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::server::{Server, until};

fn config_map(name: &str, labels: &Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})).expect("one")
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_changed_listed_and_deleted() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let made = api.create(&PostParams::default(), &config_map("a", &json!({"x": "1"}))).await.expect("created");
    assert!(made.metadata.uid.is_some());
    let twice = api.create(&PostParams::default(), &config_map("a", &json!({}))).await.expect_err("there already");
    assert_eq!(code(&twice), 409);
    api.create(&PostParams::default(), &config_map("b", &json!({"x": "2"}))).await.expect("created");
    let selected = api.list(&ListParams::default().labels("x in (2)")).await.expect("listed");
    assert_eq!(selected.items.iter().map(|it| it.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("b")]);
    let selected = api.list(&ListParams::default().fields("metadata.name=a")).await.expect("listed");
    assert_eq!(selected.items.len(), 1);
    let mut stale = made.clone();
    let mut fresh = made;
    fresh.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    api.replace("a", &PostParams::default(), &fresh).await.expect("replaced");
    stale.data = Some(BTreeMap::from([("a".into(), "3".into())]));
    assert_eq!(code(&api.replace("a", &PostParams::default(), &stale).await.expect_err("old version")), 409);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &config_map("dry", &json!({}))).await.expect("would be created");
    assert!(api.get_opt("dry").await.expect("answered").is_none());
    api.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(code(&api.get("a").await.expect_err("gone")), 404);
    let deleted =
        api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("x=2")).await.expect("deleted");
    assert!(deleted.left().is_some_and(|list| list.items.len() == 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_changes_and_an_old_version_is_gone() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let first = api.create(&PostParams::default(), &config_map("a", &json!({"x": "1"}))).await.expect("created");
    let version = first.metadata.resource_version.expect("a version");
    let watch = api.watch(&WatchParams::default().labels("x=1"), &version).await.expect("a watch");
    let mut watch = watch.boxed();
    api.create(&PostParams::default(), &config_map("b", &json!({"x": "1"}))).await.expect("created");
    api.create(&PostParams::default(), &config_map("c", &json!({"x": "2"}))).await.expect("created");
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"x": "2"}}}));
    api.patch("b", &PatchParams::default(), &relabel).await.expect("patched");
    api.delete("a", &DeleteParams::default()).await.expect("deleted");
    let mut seen = vec![];
    while seen.len() < 3 {
        let event = watch.try_next().await.expect("an event").expect("goes on");
        seen.push(match event {
            WatchEvent::Added(it) => format!("added {}", it.metadata.name.unwrap_or_default()),
            WatchEvent::Deleted(it) => format!("deleted {}", it.metadata.name.unwrap_or_default()),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(
        seen,
        ["added b", "deleted b", "deleted a"],
        "an object that is no longer selected is deleted for this watch"
    );
    server.api.store().compact().expect("compacted");
    for n in 0..5000 {
        let patch = json!({"data": {"a": n.to_string()}});
        server.api.store().patch("configmaps", "default", "c", &patch).expect("patched");
    }
    let watch = api.watch(&WatchParams::default(), &version).await;
    let gone = match watch {
        Err(error) => code(&error),
        Ok(stream) => match stream.boxed().try_next().await {
            Ok(Some(WatchEvent::Error(status))) => status.code,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(gone, 410);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubes_watcher_keeps_a_store_in_both_of_its_ways() {
    use kube::runtime::watcher;
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for (name, config) in
        [("listed", watcher::Config::default()), ("streamed", watcher::Config::default().streaming_lists())]
    {
        api.create(&PostParams::default(), &config_map(name, &json!({"of": name}))).await.expect("created");
        let mut events = watcher(api.clone(), config.labels(&format!("of={name}"))).boxed();
        let mut seen = vec![];
        while seen.last() != Some(&"done") {
            seen.push(match events.try_next().await.expect("an event").expect("goes on") {
                watcher::Event::Init => "init",
                watcher::Event::InitApply(_) => "apply",
                watcher::Event::InitDone => "done",
                _ => "other",
            });
        }
        assert_eq!(seen, ["init", "apply", "done"], "{name}");
        api.delete(name, &DeleteParams::default()).await.expect("deleted");
        let event = events.try_next().await.expect("an event").expect("goes on");
        assert!(matches!(event, watcher::Event::Delete(_)), "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_patch_is_understood() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let apply = PatchParams::apply("test");
    let whole =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1", "b": "1"}});
    api.patch("a", &apply, &Patch::Apply(&whole)).await.expect("created by apply");
    let less = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "2"}});
    let applied = api.patch("a", &apply, &Patch::Apply(&less)).await.expect("applied");
    assert_eq!(applied.data, Some(BTreeMap::from([("a".into(), "2".into())])), "what is no longer applied goes away");
    let merged =
        api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"c": "3"}}))).await.expect("merged");
    assert_eq!(merged.data.expect("data").len(), 2);
    let steps: json_patch::Patch =
        serde_json::from_value(json!([{"op": "remove", "path": "/data/a"}])).expect("a patch");
    let stepped = api.patch("a", &PatchParams::default(), &Patch::Json::<()>(steps)).await.expect("stepped");
    assert_eq!(stepped.data, Some(BTreeMap::from([("c".into(), "3".into())])));
    let nothing = api.patch("nothing", &PatchParams::default(), &Patch::Merge(json!({}))).await.expect_err("not there");
    assert_eq!(code(&nothing), 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_lives_with_its_objects() {
    let server = Server::start().await;
    let client = server.client().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    }))
    .expect("a definition");
    definitions.create(&PostParams::default(), &definition).await.expect("created");
    kube::runtime::wait::await_condition(
        definitions.clone(),
        "things.example.com",
        kube::runtime::conditions::is_crd_established(),
    )
    .await
    .expect("established");
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Thing"), "things");
    let things: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let thing = DynamicObject::new("a", &resource).data(json!({"spec": {"size": 1}, "status": {"ignored": true}}));
    let made = things.create(&PostParams::default(), &thing).await.expect("created");
    assert_eq!(made.data["status"], Value::Null);
    let status = Patch::Merge(json!({"status": {"ready": true}}));
    let patched = things.patch_status("a", &PatchParams::default(), &status).await.expect("patched");
    assert_eq!(patched.data["status"]["ready"], true);
    assert_eq!(patched.metadata.generation, Some(1));
    let (found, _) = kube::discovery::pinned_kind(&client, &GroupVersionKind::gvk("example.com", "v1", "Thing"))
        .await
        .expect("discovered");
    assert_eq!(found.plural, "things");
    definitions.delete("things.example.com", &DeleteParams::default()).await.expect("deleted");
    until("the end of the definition", async || match things.list(&ListParams::default()).await {
        Err(error) if code(&error) == 404 => Some(()),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_pods_and_goes_with_all_it_owns() {
    let server = Server::start().await;
    let client = server.client().await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }))
    .expect("a deployment");
    deployments.create(&PostParams::default(), &deployment).await.expect("created");
    let selected = ListParams::default().labels("app=web");
    let made = until("two pods", async || {
        let list = pods.list(&selected).await.expect("listed").items;
        (list.len() == 2).then_some(list)
    })
    .await;
    for pod in &made {
        let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.2", "conditions": [{"type": "Ready", "status": "True"}]}});
        let name = pod.metadata.name.as_deref().expect("a name");
        server.api.store().patch_status("pods", "default", name, &status).expect("reported");
    }
    until("an available deployment", async || {
        let status = deployments.get("web").await.expect("there").status?;
        let available = status
            .conditions?
            .iter()
            .any(|it| it.type_.as_deref() == Some("Available") && it.status.as_deref() == Some("True"));
        (available && status.ready_replicas == Some(2)).then_some(())
    })
    .await;
    deployments.delete("web", &DeleteParams::default()).await.expect("deleted");
    until("pods that end", async || {
        let list = pods.list(&selected).await.expect("listed").items;
        list.iter().all(|it| it.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_emptied_before_it_goes() {
    let server = Server::start().await;
    let client = server.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).expect("one");
    namespaces.create(&PostParams::default(), &namespace).await.expect("created");
    let inside: Api<ConfigMap> = Api::namespaced(client, "n");
    until("the root certificate", async || inside.get_opt("kube-root-ca.crt").await.expect("answered")).await;
    inside.create(&PostParams::default(), &config_map("a", &json!({}))).await.expect("created");
    namespaces.delete("n", &DeleteParams::default()).await.expect("deleted");
    until("the end of the namespace", async || match namespaces.get_opt("n").await.expect("answered") {
        None => Some(()),
        Some(_) => None,
    })
    .await;
    assert_eq!(
        code(&inside.create(&PostParams::default(), &config_map("b", &json!({}))).await.expect_err("no namespace")),
        404
    );
    server.stop().await;
}
