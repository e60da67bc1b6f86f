//! What is said to a slip, and when there is no mesh.

use std::net::TcpListener;

use crate::run::Home;

#[test]
fn slips_are_told_with_what_was_probably_meant() {
    Home::new().transcript(
        "slips",
        &[
            &["validat"],
            &["local", "upp"],
            &["create", "route-rul", "x"],
            &["proxy-config", "x", "listner"],
            &["get", "rr", "--contxt", "x"],
            &["get"],
            &["get", "rr", "-o", "jsn"],
            &["get", "rr", "-o", "jsonpath={.items"],
            &["apply", "-f", "rules.yaml", "--dry-run=sever"],
            &["apply", "-f", "rules.yaml", "--timeout", "3"],
            &["delete"],
            &["create"],
            &["get", "rr", "--name", "x", "--context", "y"],
            &["local", "status", "--context", "y"],
            &["local", "up", "--name", "../x"],
        ],
    );
}

#[test]
fn without_a_mesh_it_is_said_where_it_was_looked_for() {
    let home = Home::new();
    home.transcript(
        "no-mesh",
        &[
            &["get", "route-rules"],
            &["get", "route-rules", "-o", "json"],
            &["local", "status"],
            &["local", "status", "-o", "json"],
            &["get", "rr", "--name", "second"],
            &["proxy-status", "--kubeconfig", "nowhere"],
            &["proxy-status", "--kubeconfig", "rules.yaml"],
            &["local", "down"],
        ],
    );
}

#[test]
fn contexts_that_are_not_there_are_told_with_those_that_are() {
    let home = Home::new();
    std::fs::write(home.path().join("kubeconfig"), kubeconfig("https://127.0.0.1:1")).expect("written");
    home.transcript(
        "contexts",
        &[
            &["get", "rr", "--kubeconfig", "kubeconfig", "--context", "prd"],
            &["get", "rr", "--kubeconfig", "kubeconfig", "--context", "elsewhere"],
            &["get", "rr", "--kubeconfig", "kubeconfig", "-o", "json"],
        ],
    );
}

#[test]
fn a_server_that_never_answers_is_not_waited_for() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::fs::write(home.path().join("kubeconfig"), kubeconfig(&url)).expect("written");
    let started = tokio::time::Instant::now();
    let ran = home.run(&["get", "rr", "--kubeconfig", "kubeconfig"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("does not answer"), "{ran:?}");
    assert!(started.elapsed().as_secs() < 8, "{:?}", started.elapsed());
}

fn kubeconfig(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\nclusters: [{{name: c, cluster: {{server: \"{url}\"}}}}]\n\
         users: []\ncontexts: [{{name: prod, context: {{cluster: c}}}}, {{name: test, context: {{cluster: c}}}}]\n"
    )
}
