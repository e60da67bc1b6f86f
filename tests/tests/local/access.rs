//! Who may call what, on real traffic: by path, method and header, by token, and as `authz check` says.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Ran, Scratch, eventually, repository};

/// Nobody may call anything in the namespace, unless one of these rules says so: anybody, who has no identity yet.
const ROLES: &str = r#"
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRole
metadata: {name: readers}
spec:
  rules:
  - services: ["productpage", "details", "reviews*"]
    methods: ["GET"]
  - services: ["ratings"]
    paths: ["/ratings/*"]
    methods: ["GET"]
    constraints:
    - key: request.headers[x-caller]
      values: ["test*"]
---
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRoleBinding
metadata: {name: readers}
spec:
  subjects:
  - user: "*"
  roleRef: {kind: ServiceRole, name: readers}
"#;

fn done(ran: Ran) {
    let _ = ran.ok();
}

/// The status of a request that a pod sends.
fn status(mesh: &Mesh, pod: &str, arguments: &[&str]) -> String {
    let command = [&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20"], arguments].concat();
    mesh.exec(pod, &command).stdout.trim().to_owned()
}

/// What a sidecar counts under a name.
fn counted(mesh: &Mesh, pod: &str, name: &str) -> u64 {
    let address = "http://127.0.0.1:15020/metrics";
    let metrics = mesh.exec(pod, &["curl", "-s", address]).stdout;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).map(|count| count as u64).sum()
}

pub(crate) fn roles_decide_by_path_method_and_header(mesh: &Mesh) {
    let from = "deploy/productpage-v1";
    let roles = Scratch::file("roles.yaml", ROLES);
    let samples = |name: &str| repository().join("samples").join(name).display().to_string();
    let (dry_run, enable) = (samples("bookinfo/rbac-dry-run.yaml"), samples("bookinfo/rbac-enable.yaml"));
    let post = ["-X", "POST", "http://details:9080/details/0"];
    let ratings = "http://ratings:9080/ratings/0";

    // On trial: everything goes through, and what would not is counted.
    done(mesh.meshctl(&["create", "-f", &dry_run, "--wait"]));
    assert_eq!(status(mesh, from, &[ratings]), "200");
    eventually(Duration::from_secs(10), || {
        let would = counted(mesh, "deploy/ratings-v1", "mesh_policy_dry_run_denied_total");
        if would > 0 { Ok(()) } else { Err("nothing is counted".to_owned()) }
    });

    // In force without a role: nothing goes through, not even where no service is.
    done(mesh.meshctl(&["replace", "-f", &enable, "--wait"]));
    assert_eq!(status(mesh, from, &[ratings]), "403");
    assert_eq!(status(mesh, from, &["http://details:9080/details/0"]), "403");

    // With roles: by method, path and header.
    done(mesh.meshctl(&["create", "-f", roles.path(), "--wait"]));
    for (arguments, expected) in [
        (&["http://details:9080/details/0"][..], "200"),
        (&post, "403"),
        (&[ratings], "403"),
        (&["-H", "x-caller: test-1", ratings], "200"),
        (&["-H", "x-caller: other", ratings], "403"),
        (&["-H", "x-caller: test-1", "-H", "x-caller: other", ratings], "403"),
        (&["--path-as-is", "-H", "x-caller: test", "http://ratings:9080/ratings/../health"], "403"),
        (&["--path-as-is", "-H", "x-caller: test", "http://ratings:9080//ratings/./0"], "200"),
        (&["--http2", "-H", "x-caller: test", ratings], "200"),
        (&["--http2-prior-knowledge", ratings], "403"),
    ] {
        assert_eq!(status(mesh, from, arguments), expected, "{arguments:?}");
    }

    // The log says by which rules, the caller is not told.
    let answer = mesh.exec(from, &["curl", "-s", "-i", ratings]).stdout;
    assert!(answer.contains("x-mesh-failure: policy_denied") && !answer.contains("rbac-config"), "{answer}");
    assert!(counted(mesh, "deploy/ratings-v1", "mesh_policy_denied_total") > 0);

    // The CLI says what the proxy did, live and by files alone.
    let bookinfo = samples("bookinfo/bookinfo.yaml");
    let files = ["-f", &bookinfo, "-f", &enable, "-f", roles.path()];
    for more in [&[][..], &files] {
        let check = |to: &str, what: &[&str]| {
            let base = ["authz", "check", "--plain", "--from", from, "--to", to];
            mesh.meshctl(&[&base[..], what, more].concat())
        };
        let allowed = check("ratings:9080", &["GET", "/ratings/0", "-H", "x-caller: test"]).ok();
        assert!(
            allowed.stdout.contains("service-role-binding/default/readers/service-role/readers/rules[1]"),
            "{allowed:?}"
        );
        let denied = check("ratings:9080", &["GET", "/ratings/0"]);
        assert_eq!(denied.code, 1, "{denied:?}");
        assert!(denied.stdout.contains("denied by rbac-config/mesh-system/default"), "{denied:?}");
        assert_eq!(check("details", &["POST", "/details/0"]).code, 1);
    }
    done(mesh.meshctl(&["delete", "-f", roles.path(), "-f", &enable, "--wait"]));
    assert_eq!(status(mesh, from, &post), "405", "the application answers again");
}

pub(crate) fn tokens_decide_who_sees_the_page(mesh: &Mesh) {
    let sample = |name: &str| repository().join("samples/auth").join(name).display().to_string();
    let token = |name: &str| std::fs::read_to_string(sample(name)).expect("the sample is there").trim().to_owned();
    let (policy, good, expired) = (sample("jwt.yaml"), token("demo.jwt"), token("expired.jwt"));
    let page = |headers: &[(&str, &str)]| mesh.browser().ask("GET", "/productpage", headers).expect("an answer").status;
    assert_eq!(page(&[]), 200);
    done(mesh.meshctl(&["create", "-f", &policy, "--wait"]));
    let bearer = |token: &str| format!("Bearer {token}");
    let changed = good.replacen('.', ".e", 1);
    for (authorization, expected) in [
        ("".to_owned(), 401),
        (bearer(&good), 200),
        (bearer(&expired), 401),
        (bearer(&changed), 401),
        (good.clone(), 401),
    ] {
        let headers: &[(&str, &str)] = &[("authorization", &authorization)];
        let headers = if authorization.is_empty() { &[][..] } else { headers };
        assert_eq!(page(headers), expected, "{authorization}");
    }
    let check = |file: &str| {
        mesh.meshctl(&[
            "authz",
            "check",
            "--from",
            "nobody",
            "--to",
            "productpage",
            "GET",
            "/productpage",
            "--jwt",
            &sample(file),
        ])
    };
    done(check("demo.jwt"));
    let refused = check("expired.jwt");
    assert_eq!(refused.code, 1);
    assert!(refused.stdout.contains("the token has expired"), "{refused:?}");
    done(mesh.meshctl(&["delete", "-f", &policy, "--wait"]));
    assert_eq!(page(&[]), 200);
}
