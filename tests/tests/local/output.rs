//! What commands print, for people and for programs.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::eventually;

pub(crate) fn get_shows_rules_in_every_format(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-all-v1.yaml")]).ok();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-test-v2.yaml")]).ok();
    let get = |format: &str| mesh.meshctl(&["get", "route-rules", "-o", format]).ok().stdout;
    let names = ["details-default", "productpage-default", "ratings-default", "reviews-default", "reviews-test-v2"];
    let table = mesh.meshctl(&["get", "route-rules"]).ok().stdout;
    assert_eq!(table.lines().count(), 6, "a heading and five rules:\n{table}");
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
    let wide = get("wide");
    assert!(wide.lines().count() == 6 && wide.contains("FAULTS") && !table.contains("FAULTS"), "{wide}");
    let named: Vec<String> = names.iter().map(|name| format!("route-rule/{name}")).collect();
    assert_eq!(get("name").lines().collect::<Vec<_>>(), named);
    let json = mesh.json(&["get", "route-rules", "-o", "json"]);
    assert_eq!((&json["kind"], json["items"].as_array().map(Vec::len)), (&"List".into(), Some(5)));
    let (objects, problems) = api::object::validate_text("yaml", &get("yaml"));
    assert!(objects.len() == 5 && problems.is_empty(), "{problems:?}");
    let one = mesh.json(&["get", "route-rule", "reviews-test-v2", "-o", "json"]);
    assert_eq!(one["spec"]["match"]["request"]["headers"]["cookie"]["regex"], "^(.*?;)?(user=jason)(;.*)?$");
    let precedence = mesh.meshctl(&["get", "rr", "reviews-test-v2", "-o", "jsonpath={.spec.precedence}"]).ok().stdout;
    assert_eq!(precedence.trim(), "2");
}

pub(crate) fn what_get_prints_can_be_given_back_to_replace(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-all-v1.yaml")]).ok();
    let specs = || {
        let json = mesh.json(&["get", "route-rules", "-o", "json"]);
        let items = json["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["spec"].clone()).collect::<Vec<_>>()
    };
    // What Pilot says of a rule changes its version too, once, as in any Kubernetes: what was read before is too old then.
    eventually(Duration::from_secs(10), || {
        let json = mesh.json(&["get", "route-rules", "-o", "json"]);
        let is_told =
            |item: &serde_json::Value| item["status"]["conditions"].as_array().is_some_and(|it| !it.is_empty());
        if json["items"].as_array().into_iter().flatten().all(is_told) { Ok(()) } else { Err(json.to_string()) }
    });
    let before = specs();
    for format in ["yaml", "json"] {
        let text = mesh.meshctl(&["get", "route-rules", "-o", format]).ok().stdout;
        let _ = mesh.meshctl_with_input(&["replace", "-f", "-"], &text).ok();
        assert_eq!(specs(), before, "{format}");
    }
    let text = mesh.meshctl(&["get", "route-rule", "reviews-default", "-o", "yaml"]).ok().stdout;
    let _ =
        mesh.meshctl_with_input(&["replace", "-f", "-", "--wait"], &text.replace("version: v1", "version: v3")).ok();
    assert_ne!(specs(), before);
    // What was read before the change is too old to be written over it.
    let late = mesh.meshctl_with_input(&["replace", "-f", "-"], &text);
    assert_eq!(late.code, 1, "{late:?}");
    for words in ["error: the object was changed meanwhile", "reviews-default (-:1:1)", "hint: run the command again; "]
    {
        assert!(late.stderr.contains(words), "{words}: {late:?}");
    }
}

pub(crate) fn status_and_version_tell_people_and_programs(mesh: &Mesh) {
    let status = mesh.json(&["local", "status", "-o", "json"]);
    assert_eq!((&status["running"], &status["name"]), (&true.into(), &mesh.name().into()));
    assert_eq!(status["gateway"], format!("http://{}", mesh.gateway()));
    assert_eq!(status["pods"].as_array().map(Vec::len), Some(9), "{status}");
    assert!(status["pods"].as_array().into_iter().flatten().all(|pod| pod["ready"] == true), "{status}");
    let text = mesh.meshctl(&["local", "status"]).ok().stdout;
    assert!(text.starts_with(&format!("mesh      {} (version ", mesh.name())), "{text}");
    assert!(text.contains(&format!("gateway   http://{}", mesh.gateway())), "{text}");
    assert_eq!(text.matches("2/2     Running").count(), 6, "{text}");
    let version = env!("CARGO_PKG_VERSION");
    let text = mesh.meshctl(&["version"]).ok().stdout;
    let expected = format!(
        "client:         {version}\ncontrol plane:  {version} (1 pod)\nproxies:        {version} (7 proxies)\n"
    );
    assert_eq!(text, expected);
    let json = mesh.json(&["version", "-o", "json"]);
    assert_eq!((&json["client"]["version"], &json["proxies"][0]["count"]), (&version.into(), &7.into()));
}

pub(crate) fn logs_are_streamed_as_they_are_written(mesh: &Mesh) {
    let arguments = ["local", "logs", "deploy/productpage-v1", "-c", "mesh-proxy", "-f", "--tail", "1"];
    let mut following = mesh.command(&arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let (told, heard) = mpsc::channel();
    let output = BufReader::new(following.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    let seen = |id: &str| {
        let _ = mesh.browser().get("/productpage", &[("x-request-id", id)]).expect("the gateway answers");
        eventually(Duration::from_secs(10), || {
            let line = heard.recv_timeout(Duration::from_secs(5)).map_err(|e| format!("{id}: {e}"))?;
            if line.contains(id) { Ok(()) } else { Err(line) }
        });
    };
    seen("streamed-1");
    seen("streamed-2");
    following.kill().expect("it still runs");
    let _ = following.wait();
    drop(heard);
    let _ = reader.join();
}
