//! What people get wrong, and what they read then: what, where, what next; nothing is changed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use mesh_tests::access_log;
use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Ran, Scratch, eventually, program, repository, run};

/// A rule whose `spec` has these lines, from line 7 on.
fn rule(lines: &str) -> String {
    format!(
        "apiVersion: config.meshctl.io/v1alpha2\nkind: RouteRule\nmetadata:\n  name: bad\nspec:\n  destination: \
         {{name: reviews}}\n{lines}"
    )
}

/// All rules and policies, with their versions.
fn objects(mesh: &Mesh) -> String {
    mesh.meshctl(&["get", "route-rules,destination-policies", "-A", "-o", "json"]).ok().stdout
}

/// Asserts that the user was told each of these `(where, what)`, what next, and how many they are.
fn told(ran: &Ran, file: &str, problems: &[(&str, &str)], summary: &str) {
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    for (place, what) in problems {
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("error: ") && line.contains(what));
        let at = at.unwrap_or_else(|| panic!("`{what}` was not said:\n{}", ran.stderr));
        assert!(lines[at + 1].starts_with(&format!("  at {file}:{place}")), "{what}:\n{}", ran.stderr);
    }
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(), problems.len(), "{}", ran.stderr);
    assert!(ran.stderr.trim_end().ends_with(summary), "{}", ran.stderr);
}

pub(crate) fn a_bad_file_is_refused_with_what_where_and_what_next(mesh: &Mesh) {
    mesh.without_rules();
    let before = objects(mesh);
    let egress = repository().join("api/tests/data/bookinfo/0.8.0-kube/egress-rule-google-apis.yaml");
    let egress = std::fs::read_to_string(egress).expect("the sample is there");
    for (text, place, what, next) in [
        (rule("  precedance: 1\n"), "7:3 ", "unknown field `precedance` in `spec`", "did you mean `precedence`?"),
        (rule("  precedence: high\n"), "7:15 ", "must be a whole number, not the text `high`", ""),
        (
            rule("  route:\n  - labels: {version: v1}\n    weight: 60\n  - labels: {version: v2}\n    weight: 30\n"),
            "7:3 ",
            "the weights of route `bad` add up to 90, not 100",
            "add a destination with weight 10",
        ),
        (rule("").replace("RouteRule", "RouteRul"), "2:7 ", "`RouteRul` is not a kind", "did you mean `RouteRule`?"),
        ("apiVersion: v1\nkind: Widget\nmetadata: {name: w}\n".to_owned(), "1:1", "does not serve kind Widget", "mend"),
        (String::new(), "1:1", "there is no object in here", "an object begins with `apiVersion:` and `kind:`"),
        ("\n# nothing yet\n---\n".to_owned(), "1:1", "there is no object in here", "an object begins with"),
        (rule("  mirror: {name: ratings}\n"), "7:3 ", "`mirror` is understood but not in force", "leave it out"),
        (egress, "2:7 ", "`EgressRule` is understood but not in force", "leave it out"),
        (rule("  route: [\n"), "7:10", "this is not YAML", ""),
    ] {
        let file = Scratch::file("bad.yaml", &text);
        for verb in ["create", "apply", "replace"] {
            let ran = mesh.meshctl(&[verb, "-f", file.path()]);
            told(&ran, file.path(), &[(place, what)], "1 error in 1 file; nothing was changed");
            assert!(next.is_empty() || ran.stderr.contains(&format!("hint: {next}")), "{verb}: {}", ran.stderr);
        }
    }
    assert_eq!(objects(mesh), before, "something was changed");
}

const MANY_PROBLEMS: &str = r#"apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata:
  name: sound
spec:
  destination:
    name: reviews
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata:
  name: one
spec:
  destination:
    name: reviews
  precedance: 1
  route:
  - labels:
      version: v1
    weight: 60
  - labels:
      version: v2
    weight: 30
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata:
  name: two
spec:
  destination:
    name: reviews
  precedence: high
  httpFault:
    abort:
      percent: 101
      httpStatus: 99
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRul
metadata:
  name: three
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata:
  name: four
spec:
  destination:
    name: "reviews?"
  mirror:
    name: reviews
  match:
    request:
      headers:
        cookie:
          regex: "("
        uri:
          exat: /x
---
apiVersion: config.meshctl.io/v1alpha2
kind: DestinationPolicy
metadata:
  name: five
spec:
  loadBalancing:
    name: FASTEST
"#;

pub(crate) fn ten_problems_of_one_file_are_told_at_once(mesh: &Mesh) {
    mesh.without_rules();
    let before = objects(mesh);
    let problems = [
        ("16:3 (RouteRule one, spec.precedance)", "unknown field `precedance`"),
        ("17:3 (RouteRule one, spec.route)", "the weights of route `one` add up to 90, not 100"),
        ("32:15 (RouteRule two, spec.precedence)", "must be a whole number"),
        ("35:16 (RouteRule two, spec.httpFault.abort.percent)", "`percent` is 101"),
        ("36:19 (RouteRule two, spec.httpFault.abort.httpStatus)", "`httpStatus` is 99"),
        ("39:7 (RouteRul three, kind)", "`RouteRul` is not a kind"),
        ("49:11 (RouteRule four, spec.destination.name)", "cannot be a name in DNS"),
        ("50:3 (RouteRule four, spec.mirror)", "not in force yet"),
        ("56:18 (RouteRule four, spec.match.request.headers.cookie.regex)", "is not a regular expression"),
        ("58:11 (RouteRule four, spec.match.request.headers.uri.exat)", "unknown field `exat`"),
        ("64:1 (DestinationPolicy five, spec)", "`destination` is missing"),
        ("66:11 (DestinationPolicy five, spec.loadBalancing.name)", "must be ROUND_ROBIN, LEAST_CONN or RANDOM"),
    ];
    let file = Scratch::file("many.yaml", MANY_PROBLEMS);
    for arguments in [&["create"][..], &["apply"], &["validate"], &["local", "up"]] {
        let ran = mesh.meshctl(&[arguments, &["-f", file.path()]].concat());
        let summary = match arguments {
            ["validate"] => "12 errors in 1 file",
            ["local", ..] => "12 errors in 1 file; nothing was started",
            _ => "12 errors in 1 file; nothing was changed",
        };
        told(&ran, file.path(), &problems, summary);
    }
    assert_eq!(objects(mesh), before, "the sound object of the file was created");
}

pub(crate) fn what_is_there_is_not_created_and_what_is_not_there_is_not_replaced(mesh: &Mesh) {
    mesh.without_rules();
    let (one, all) = (Mesh::sample("route-rule-reviews-v3.yaml"), Mesh::sample("route-rule-all-v1.yaml"));
    let _ = mesh.meshctl(&["create", "-f", &one]).ok();
    let before = objects(mesh);
    // One of four is there: none is created. Three of four are not: none is replaced.
    let created = mesh.meshctl(&["create", "-f", &all]);
    told(
        &created,
        &all,
        &[("13:1", "route-rule default/reviews-default is there already")],
        "1 error in 1 file; nothing was changed",
    );
    assert!(created.stderr.contains("hint: use `meshctl apply` or `meshctl replace`"), "{}", created.stderr);
    let replaced = mesh.meshctl(&["replace", "-f", &all]);
    let missing = [
        ("1:1", "route-rule default/productpage-default is not there"),
        ("25:1", "route-rule default/ratings-default is not there"),
        ("37:1", "route-rule default/details-default is not there"),
    ];
    told(&replaced, &all, &missing, "3 errors in 1 file; nothing was changed");
    assert!(replaced.stderr.contains("hint: use `meshctl apply` or `meshctl create`"), "{}", replaced.stderr);
    let deleted = mesh.meshctl(&["delete", "route-rule", "reviews-default", "reviews-defualt"]);
    assert_eq!(deleted.code, 1, "{deleted:?}");
    assert!(deleted.stderr.contains("route-rule default/reviews-defualt is not there"), "{}", deleted.stderr);
    assert!(deleted.stderr.contains("did you mean `reviews-default`?"), "{}", deleted.stderr);
    assert_eq!(objects(mesh), before, "something was changed");
}

/// A mesh that does not start: its name is free again afterwards.
fn refused(name: &str, wrap: &[&str], arguments: &[&str]) -> Ran {
    let name = format!("{name}-{}", std::process::id());
    let meshctl = program("meshctl").to_string_lossy().into_owned();
    let words: Vec<&str> = wrap
        .iter()
        .copied()
        .chain([meshctl.as_str(), "--name", &name, "local", "up"])
        .chain(arguments.iter().copied())
        .collect();
    let ran = run(Command::new(words[0]).args(&words[1..]));
    let status = run(Command::new(&meshctl).args(["--name", &name, "local", "status"]));
    assert_eq!(status.code, 3, "a mesh runs: {status:?}");
    let _ = run(Command::new(&meshctl).args(["--name", &name, "local", "down", "--purge"])).ok();
    assert_eq!(ran.code, 1, "{ran:?}");
    ran
}

pub(crate) fn a_port_in_use_is_told_with_who_has_it_unless_the_next_one_will_do(mesh: &Mesh) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let ran = refused("taken", &[], &["--port", &port]);
    assert!(ran.stderr.contains(&format!("error: port {port} is in use on this machine")), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: choose another with --port, or stop what uses it"), "{}", ran.stderr);
    // The port of a mesh that runs is as taken as any.
    let (_, own) = mesh.gateway().rsplit_once(':').expect("host and port");
    let ran = refused("taken", &[], &["--port", own]);
    assert!(ran.stderr.contains(&format!("error: port {own} is in use on this machine")), "{}", ran.stderr);
}

pub(crate) fn a_machine_without_user_namespaces_is_told_which_setting_forbids_them(_: &Mesh) {
    // Within a user namespace the limit is its own.
    let without = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let ran = refused("userns", &["unshare", "-Ur", "sh", "-c", without, "sh"], &[]);
    assert!(ran.stderr.contains("error: this machine does not allow user namespaces"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: user.max_user_namespaces is 0; allow them with `sudo sysctl"), "{}", ran.stderr);
}

pub(crate) fn a_machine_without_nft_is_told_how_to_get_it(_: &Mesh) {
    // Hides the places where it may be.
    let without = "for dir in /usr/sbin /sbin /usr/local/sbin; do if [ -d $dir ]; then mount -t tmpfs none $dir || exit 9; \
                   fi; done; PATH=/usr/bin:/bin exec \"$@\"";
    let ran = refused("nft", &["unshare", "-Urm", "sh", "-c", without, "sh"], &[]);
    assert!(ran.stderr.contains("error: `nft` is not installed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: sudo apt-get install nftables"), "{}", ran.stderr);
}

fn deployment(name: &str, image: &str, command: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: \
         {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: app, image: \
         \"{image}\"{command}}}]}}\n"
    )
}

pub(crate) fn an_image_without_a_program_and_a_program_that_exits_at_once_are_told(mesh: &Mesh) {
    let lost = Scratch::file("lost.yaml", &deployment("lost", "example.com/lost:1", ""));
    let ran = mesh.meshctl(&["local", "up", "-f", lost.path()]);
    let _ = mesh.meshctl(&["delete", "-f", lost.path()]).ok();
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in [
        "error: 1 pod cannot start",
        "no program is known for image example.com/lost:1",
        "--image example.com/lost:1=PROGRAM",
        "hint: the mesh runs; mend the cause",
    ] {
        assert!(ran.stderr.contains(words), "{words}:\n{}", ran.stderr);
    }
    let script = ", command: [sh, -c, \"echo the first words; echo the last words >&2; exit 3\"]";
    let hasty = Scratch::file("hasty.yaml", &deployment("hasty", "none", script));
    let ran = mesh.meshctl(&["local", "up", "-f", hasty.path()]);
    let status = mesh.json(&["local", "status", "-o", "json"]);
    let _ = mesh.meshctl(&["delete", "-f", hasty.path()]).ok();
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["error: 1 pod cannot start", "app CrashLoopBackOff", "the first words", "the last words"] {
        assert!(ran.stderr.contains(words), "{words}:\n{}", ran.stderr);
    }
    let problem = status["pods"].as_array().into_iter().flatten().find_map(|pod| pod.get("problem"));
    assert!(problem.is_some_and(|it| it["message"].as_str().is_some_and(|m| m.contains("last words"))), "{status}");
}

/// Bytes that are no request, and the status that they are answered with.
const MALFORMED: &[(&str, u16)] = &[
    ("GET /productpage HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET  /productpage HTTP/1.1\r\nHost: a\r\n\r\n", 505),
    ("GET /productpage\r\nHost: a\r\n\r\n", 505),
    ("GET /productpage HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
    ("GET /productpage HTTP/1.1\nHost: a\n\n", 400),
    ("GET /productpage%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    ("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("POST /login HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\x1c\x03\x03", 400),
];

pub(crate) fn no_malformed_request_passes_the_gateway(mesh: &Mesh) {
    mesh.without_rules();
    let mut wrong = Vec::new();
    for (nth, (bytes, expected)) in MALFORMED.iter().enumerate() {
        // What follows a request that cannot be read is not served either.
        let id = format!("malformed-{nth}");
        let next = format!("GET /productpage HTTP/1.1\r\nHost: a\r\nx-request-id: {id}\r\n\r\n");
        let mut stream = TcpStream::connect(mesh.gateway()).expect("the gateway accepts");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let marked = bytes.replacen("\r\nHost", &format!("\r\nx-request-id: {id}\r\nHost"), 1);
        stream.write_all(format!("{marked}{next}").as_bytes()).expect("sent");
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let is_refused = answer.starts_with(&format!("HTTP/1.1 {expected} ")) && answer.contains("x-mesh-failure: ");
        if !is_refused || answer.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{bytes:?}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // One that can be read shows that the upstream's log is up to date.
    let _ = mesh.browser().get("/productpage", &[("x-request-id", "malformed-not")]).expect("the gateway answers");
    eventually(Duration::from_secs(10), || {
        let log = mesh.meshctl(&["local", "logs", "deploy/productpage-v1", "-c", "mesh-proxy"]).ok().stdout;
        let seen: Vec<_> = access_log::lines(&log).filter(|it| it.request_id.starts_with("malformed-")).collect();
        assert!(seen.iter().all(|line| line.request_id == "malformed-not"), "the upstream has seen one: {seen:?}");
        if seen.is_empty() { Err(log) } else { Ok(()) }
    });
}
