//! Commands that need no mesh.

use crate::run::Home;

/// Commands that print no data of their own: they change something, pass on what others print, or write a file's text.
const WITHOUT_DATA: &[&str] = &[
    "ca rotate",
    "completion",
    "local down",
    "local exec",
    "local kubeconfig",
    "local logs",
    "local port-forward",
    "local up",
    "uninstall",
];

/// Every command that is shown, with the words that call it.
fn commands(of: &clap::Command, words: &str, all: &mut Vec<(String, clap::Command)>) {
    for inner in of.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let words = format!("{words} {}", inner.get_name()).trim().to_owned();
        commands(inner, &words, all);
        all.push((words, inner.clone()));
    }
}

#[test]
fn every_command_has_examples_exit_codes_and_an_output_format() {
    let mut root = meshctl::args::command();
    root.build();
    let mut all = Vec::new();
    commands(&root, "", &mut all);
    assert!(all.iter().any(|(words, _)| words == "ca issue"), "the tree is walked to its leaves");
    let mut without_data: Vec<&str> = Vec::new();
    for (words, command) in &mut all {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Examples:\n  "), "{words} has no examples:\n{help}");
        let called = format!("meshctl {words}");
        assert!(help.contains(&called), "no example of `{words}` calls it:\n{help}");
        assert!(help.contains("Exit codes: 0 done"), "{words}");
        let is_leaf = command.get_subcommands().next().is_none();
        if is_leaf && !command.get_arguments().any(|argument| argument.get_short() == Some('o')) {
            without_data.push(words);
        }
    }
    without_data.sort_unstable();
    assert_eq!(without_data, WITHOUT_DATA, "a command that prints data has -o");
}

#[test]
fn help_is_printed_and_no_error() {
    let ran = Home::new().run(&["ca", "issue", "--help"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("Examples:\n  "), "{ran:?}");
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
fn a_program_is_told_what_became_of_each_object() {
    let home = Home::new();
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n";
    let arguments = ["inject", "-f", "deployment.yaml", "-f", "-", "--root-cert", "deployment.yaml", "-o", "json"];
    let ran = home.run_with_input(&arguments, widget);
    assert_eq!(ran.code, 0, "{ran:?}");
    let list: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let kinds: Vec<&str> =
        list["items"].as_array().into_iter().flatten().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, ["Service", "Deployment", "Widget"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stderr).expect("JSON");
    let told = |at: usize, field: &str| report["objects"][at][field].as_str().unwrap_or_default().to_owned();
    let results: Vec<_> = (0..3).map(|at| (told(at, "kind"), told(at, "result"), told(at, "reason"))).collect();
    let expected = [
        ("Service", "skipped", "it runs no pods"),
        ("Deployment", "injected", ""),
        ("Widget", "unknown", "unknown kind, and no pod template at spec.template"),
    ];
    assert_eq!(results, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
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

/// A kubeconfig as people have them.
const THEIRS: &str = "\
apiVersion: v1
kind: Config
current-context: work
clusters:
- name: work
  cluster: {server: https://work.example.com, certificate-authority-data: d29yaw==}
users:
- name: ann
  user: {token: secret}
contexts:
- name: work
  context: {cluster: work, user: ann, namespace: shop}
preferences: {colors: true}
extensions:
- name: theirs
  extension: {kept: yes}
";

/// A home with a local mesh that has run, and does not run now.
fn with_a_mesh() -> Home {
    let home = Home::new();
    let state = home.path().join(".local/state/meshctl/default");
    std::fs::create_dir_all(&state).expect("made");
    let ours = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "mesh-default",
        "clusters": [{"name": "mesh-default", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": "b3Vycw=="}}],
        "users": [{"name": "mesh-default", "user": {"client-key-data": "a2V5"}}],
        "contexts": [{"name": "mesh-default", "context": {"cluster": "mesh-default", "user": "mesh-default"}}]}"#;
    std::fs::write(state.join("kubeconfig"), ours).expect("written");
    home
}

fn yaml(path: &std::path::Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("a file");
    api::yaml::parse("it", &text).0.first().expect("one document").to_json()
}

#[test]
fn a_mesh_is_merged_into_a_kubeconfig_and_taken_out_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = with_a_mesh();
    let config = home.path().join(".kube/config");
    std::fs::create_dir_all(config.parent().expect("a directory")).expect("made");
    std::fs::write(&config, THEIRS).expect("written");
    let before = yaml(&config);
    for arguments in [&["--merge"][..], &["--merge", "--set-current"], &["--merge", "--set-current"]] {
        let ran = home.run(&[&["local", "kubeconfig"][..], arguments].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "mesh-default\n"), "{ran:?}");
    }
    let merged = yaml(&config);
    assert_eq!(merged["current-context"], "mesh-default");
    for list in ["clusters", "users", "contexts"] {
        let entries = merged[list].as_array().expect("a list");
        assert_eq!(entries.len(), 2, "{list}: merging again adds nothing");
        assert_eq!(entries[0], before[list][0], "{list}");
    }
    assert_eq!((&merged["preferences"], &merged["extensions"]), (&before["preferences"], &before["extensions"]));
    let mode = std::fs::metadata(&config).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds a key");

    let ran = home.run(&["local", "down"]);
    assert!(ran.code == 0 && ran.stderr.contains("removed context `mesh-default` from HOME/.kube/config"), "{ran:?}");
    assert_eq!(yaml(&config), before);
    assert!(!home.run(&["local", "down"]).stderr.contains("removed"), "once is enough");
}

#[test]
fn a_kubeconfig_that_cannot_be_merged_into_is_left_as_it_is() {
    let home = with_a_mesh();
    let path = home.path().join("config");
    let foreign = THEIRS.replace("name: work", "name: mesh-default");
    for (text, word) in [
        (foreign.as_str(), "another cluster `mesh-default`"),
        ("clusters: [", "is not a kubeconfig"),
        ("- a list", "is not a kubeconfig"),
    ] {
        std::fs::write(&path, text).expect("written");
        let ran = home.run(&["local", "kubeconfig", "--merge=config"]);
        assert!(ran.code == 1 && ran.stderr.contains(word), "{word}: {ran:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
    }
    std::fs::remove_file(&path).expect("removed");
    let ran = home.run(&["local", "kubeconfig", "--merge=config"]);
    assert_eq!(ran.code, 0, "one that is not there is made: {ran:?}");
    assert_eq!(yaml(&path)["contexts"][0]["name"], "mesh-default");
    let ran = home.run(&["local", "kubeconfig", "--set-current"]);
    assert!(ran.code == 2 && ran.stderr.contains("--merge"), "{ran:?}");
}

/// Objects that are good by themselves, and contradict each other or refer to what is not there.
const CONTRADICTIONS: &str = "apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: a}
spec: {peers: [{mtls: {mode: STRICT}}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: b}
spec: {peers: [{mtls: {mode: PERMISSIVE}}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RbacConfig
metadata: {name: default, namespace: mesh-system}
spec: {mode: 'OFF'}
---
apiVersion: config.meshctl.io/v1alpha2
kind: Rule
metadata: {name: ask, namespace: mesh-system}
spec: {actions: [{handler: roles.rbac, instances: [who.authorization]}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: Authorization
metadata: {name: who, namespace: mesh-system}
spec:
  subject: {user: source.user}
  action: {namespace: destination.namespace, service: destination.service, method: request.method, path: request.path}
";

#[test]
fn validate_tells_contradictions_with_what_holds_and_fails_over_them_if_asked() {
    let home = Home::new();
    std::fs::write(home.path().join("both.yaml"), CONTRADICTIONS).expect("written");
    let told = [
        "warning: it says PERMISSIVE of namespace default, of which default/a says STRICT: the stricter holds",
        "  at both.yaml:6:1 (AuthenticationPolicy default/b)",
        "hint: let one policy say it",
        "warning: there is no rbac/mesh-system/roles among these objects",
        "  at both.yaml:16:1 (Rule mesh-system/ask)",
        "hint: the rule is in force all the same, with nothing of its own to say: create it too",
        "warning: it asks roles, which mesh-system/default switches off: the stricter holds",
        "  at both.yaml:16:1 (Rule mesh-system/ask)",
        "hint: let one object say it",
    ];
    let ran = home.run(&["validate", "-f", "both.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "valid: 5 objects in 1 file, 3 warnings\n"), "{ran:?}");
    assert_eq!(ran.stderr.lines().collect::<Vec<_>>(), told);
    let ran = home.run(&["validate", "-f", "both.yaml", "--strict"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!((&lines[..9], lines[9]), (&told[..], "0 errors, 3 warnings in 1 file"));
    let ran = home.run(&["validate", "-f", "both.yaml", "--strict", "-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &said["valid"], said["problems"].as_array().map(Vec::len)), (1, &false.into(), Some(3)));
    assert_eq!(said["problems"][0]["severity"], "warning", "{said}");
    // What does not contradict itself is good enough for the strict, too.
    assert_eq!(home.run(&["validate", "-f", "rules.yaml", "--strict"]).code, 0);
}
