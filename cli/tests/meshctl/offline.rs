//! Commands that need no mesh.

use crate::run::Home;

#[test]
fn help_of_every_command_has_examples_and_exit_codes() {
    let commands: &[&[&str]] = &[
        &["create"],
        &["create", "route-rule"],
        &["replace"],
        &["apply"],
        &["delete"],
        &["get"],
        &["validate"],
        &["kube-inject"],
        &["proxy-status"],
        &["proxy-config"],
        &["install"],
        &["uninstall"],
        &["version"],
        &["local"],
        &["local", "up"],
        &["local", "status"],
        &["local", "down"],
        &["local", "exec"],
        &["local", "logs"],
        &["local", "kubeconfig"],
    ];
    let home = Home::new();
    for command in commands {
        let ran = home.run(&[command, &["--help"][..]].concat());
        assert_eq!(ran.code, 0, "{command:?}");
        assert!(ran.stdout.contains("Examples:\n  "), "{command:?} has no examples:\n{}", ran.stdout);
        assert!(ran.stdout.contains("Exit codes: 0 done"), "{command:?}");
    }
}

#[test]
fn help_is_as_it_was() {
    Home::new().transcript(
        "help",
        &[
            &["--help"],
            &["create", "route-rule", "--help"],
            &["get", "--help"],
            &["local", "--help"],
            &["local", "up", "--help"],
        ],
    );
}

#[test]
fn validate_shows_every_problem_of_every_file_at_once() {
    Home::new().transcript(
        "validate",
        &[
            &["validate", "-f", "rules.yaml"],
            &["validate", "-f", "bad.yaml", "-f", "broken.yaml", "-f", "empty.yaml"],
            &["validate", "-f", "bad.yaml", "-o", "json"],
            &["validate", "-f", "rules.yaml", "-o", "json"],
            &["validate", "-f", "rulez.yaml"],
            &["validate"],
        ],
    );
}

#[test]
fn a_rule_from_flags_is_the_object_that_a_file_would_hold() {
    Home::new().transcript(
        "create-route-rule",
        &[
            &[
                "create",
                "route-rule",
                "reviews-canary",
                "--destination",
                "reviews",
                "--route",
                "version=v1:90",
                "--route",
                "version=v3:10",
                "--precedence",
                "2",
                "--dry-run",
                "-o",
                "yaml",
            ],
            &[
                "create",
                "route-rule",
                "everything",
                "--destination",
                "reviews.prod",
                "--route",
                "version=v2",
                "--match-header",
                "cookie=regex:^(.*?;)?(user=jason)(;.*)?$",
                "--match-uri",
                "prefix:/x",
                "--source",
                "productpage",
                "--source-label",
                "version=v1",
                "--delay",
                "7s:100",
                "--abort",
                "500:50",
                "--timeout",
                "3s",
                "--retries",
                "3:500ms",
                "--dry-run",
                "-o",
                "yaml",
            ],
            &[
                "create",
                "route-rule",
                "moved",
                "--destination",
                "reviews",
                "--redirect-uri",
                "/y",
                "--dry-run",
                "-o",
                "json",
            ],
            &["create", "route-rule", "x", "--destination", "reviews", "--route", "version=v1:60", "--dry-run"],
            &["create", "route-rule", "x", "--destination", "reviews", "--route", "v1", "--dry-run"],
            &["create", "route-rule", "--destination", "reviews"],
            &["create", "route-rule", "x", "--destination", "reviews", "--route", "version=v1", "--redirect-uri", "/y"],
        ],
    );
}

#[test]
fn injection_prints_nothing_unless_all_of_it_succeeds() {
    let home = Home::new();
    std::fs::write(home.path().join("root.pem"), "ROOT\n").expect("written");
    home.transcript(
        "kube-inject",
        &[&["kube-inject", "-f", "deployment.yaml", "--root-cert", "root.pem", "--tag", "1"]],
    );
    let failed = home.run(&["kube-inject", "-f", "deployment.yaml", "-f", "broken.yaml", "--root-cert", "root.pem"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""));
    let once = home.run(&["inject", "-f", "deployment.yaml", "--root-cert", "root.pem"]).stdout;
    let twice = home.run_with_input(&["inject", "-f", "-", "--root-cert", "root.pem"], &once);
    assert_eq!(twice.stdout, once, "injecting twice is injecting once");
    assert!(twice.stderr.contains("deployment/app skipped: it has a sidecar already"), "{}", twice.stderr);
    let back = home.run_with_input(&["uninject", "-f", "-"], &once);
    let original = std::fs::read_to_string(home.path().join("deployment.yaml")).expect("read");
    assert_eq!(back.stdout, original, "the bytes come back");
    assert!(back.stderr.contains("deployment/app without its sidecar"), "{}", back.stderr);
    let refused = "kind: Job\napiVersion: batch/v1\nmetadata:\n  name: a\nx: &t {spec: {containers: []}}\nspec:\n  template: *t\n";
    let refused =
        home.run_with_input(&["inject", "-f", "deployment.yaml", "-f", "-", "--root-cert", "root.pem"], refused);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("it is (or comes from) an alias"), "{}", refused.stderr);
}

#[test]
fn files_that_are_injected_together_come_out_as_one_stream() {
    let home = Home::new();
    std::fs::write(home.path().join("root.pem"), "ROOT\n").expect("written");
    let files = ["-f", "deployment.yaml", "-f", "deployment.yaml", "-o", "out.yaml", "--root-cert", "root.pem"];
    let ran = home.run(&[&["inject"], files.as_slice()].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stderr.ends_with("4 objects: 2 injected, 2 skipped\n"), "{}", ran.stderr);
    let text = std::fs::read_to_string(home.path().join("out.yaml")).expect("read");
    assert_eq!(text.matches("\n---\n").count(), 3, "{text}");
}

#[test]
fn manifests_are_printed_without_a_cluster() {
    let home = Home::new();
    let ran = home.run(&["install", "--dry-run", "-o", "name"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for object in ["namespace/mesh-system", "deployment.apps/mesh-pilot", "service/mesh-ingressgateway"] {
        assert!(ran.stdout.lines().any(|line| line == object), "{object} is missing in\n{}", ran.stdout);
    }
    let json = home.run(&["install", "--dry-run", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(list["kind"], "List");
}

#[test]
fn the_clients_version_is_told_without_a_mesh() {
    let home = Home::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(home.run(&["version", "--client"]).stdout, format!("client:         {version}\n"));
    let ran = home.run(&["version"]);
    assert_eq!((ran.code, ran.stdout), (0, format!("client:         {version}\n")));
    assert!(ran.stderr.contains("no mesh found"));
    let json: serde_json::Value = serde_json::from_str(&home.run(&["version", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(json["client"]["version"], version);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let mut child = home.command(&["install", "--dry-run"]).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
