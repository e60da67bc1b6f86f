//! Who may call what, on real traffic: by path, method and header, by token, and as `authz check` says.

use std::time::Duration;

use mesh_tests::access_log;
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

/// Waits for a line about a denial in a sidecar's log which says by what.
fn is_logged(mesh: &Mesh, pod: &str, details: &str) {
    eventually(Duration::from_secs(5), || {
        let log = mesh.meshctl(&["local", "logs", pod, "-c", "mesh-proxy"]).ok().stdout;
        let is_it = |line: access_log::Line| line.code == "policy_denied" && line.details == details;
        if access_log::lines(&log).any(is_it) { Ok(()) } else { Err(log) }
    });
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
    a_connection_to_no_service_is_closed_and_logged(mesh, from);

    // A binding on trial gives nobody the role yet.
    let on_trial = Scratch::file("trial.yaml", &ROLES.replace("  roleRef:", "  mode: PERMISSIVE\n  roleRef:"));
    done(mesh.meshctl(&["create", "-f", on_trial.path(), "--wait"]));
    assert_eq!(status(mesh, from, &["http://details:9080/details/0"]), "403");
    done(mesh.meshctl(&["delete", "-f", on_trial.path(), "--wait"]));

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
    is_logged(mesh, "deploy/ratings-v1", "rbac-config/mesh-system/default[none]");

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

/// Where roles are in force, opaque bytes to a port that no service has are refused as well.
fn a_connection_to_no_service_is_closed_and_logged(mesh: &Mesh, from: &str) {
    let pods = mesh.json(&["get", "pods", "-n", "default", "-l", "app=ratings", "-o", "json"]);
    let address = pods["items"][0]["status"]["podIP"].as_str().expect("an address").to_owned();
    let refused = mesh.exec(from, &["curl", "-s", "-m", "20", &format!("http://{address}:7777/")]);
    assert!(refused.stdout.is_empty(), "{refused:?}");
    eventually(Duration::from_secs(5), || {
        let log = mesh.meshctl(&["local", "logs", "deploy/ratings-v1", "-c", "mesh-proxy"]).ok().stdout;
        let is_denial = |line: access_log::Line| {
            let names_rules = line.details == "rbac-config/mesh-system/default[none]";
            line.destination.ends_with(":7777") && line.code == "policy_denied" && names_rules
        };
        if access_log::lines(&log).any(is_denial) { Ok(()) } else { Err(log) }
    });
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

/// A classic file about who may call what, unchanged.
fn classic(file: &str) -> String {
    repository().join("api/tests/data/access").join(file).display().to_string()
}

pub(crate) fn the_classic_role_files_give_what_their_task_describes(mesh: &Mesh) {
    const DETAILS: &str = "Error fetching product details!";
    const REVIEWS: &str = "Error fetching product reviews!";
    const RATINGS: &str = "Ratings service is currently unavailable";
    const STARS: &str = "glyphicon-star";
    let page = || mesh.browser().get("/productpage", &[]).expect("the gateway answers");
    // What the page shows, and what it does not.
    let shows = |step: &str, there: &[&str], not_there: &[&str]| {
        let page = page();
        assert_eq!(page.status, 200, "{step}: {}", page.body);
        there.iter().for_each(|text| assert!(page.body.contains(text), "{step}: {text}: {}", page.body));
        not_there.iter().for_each(|text| assert!(!page.body.contains(text), "{step}: {text}: {}", page.body));
    };
    let create = |file: &str| done(mesh.meshctl(&["create", "-f", &classic(file), "--wait"]));
    let stars = Mesh::sample("route-rule-reviews-v3.yaml");
    done(mesh.meshctl(&["apply", "-f", &stars, "--wait"]));
    shows("before", &[STARS], &[DETAILS, REVIEWS, RATINGS]);

    create("istio-rbac-enable.yaml");
    let refused = page();
    assert_eq!(refused.status, 403, "nobody has a role: {}", refused.body);
    assert_eq!(status(mesh, "deploy/productpage-v1", &["http://details:9080/details/0"]), "403");

    // By namespace: everything is read by the namespace itself and by the ingress, nothing is written.
    create("istio-rbac-namespace.yaml");
    shows("namespace", &[STARS], &[DETAILS, REVIEWS, RATINGS]);
    let post = mesh.browser().ask("POST", "/productpage", &[]).expect("the gateway answers");
    assert_eq!(post.status, 403, "{}", post.body);
    assert_eq!(status(mesh, "deploy/ratings-v1", &["http://details:9080/details/0"]), "200");
    done(mesh.meshctl(&["delete", "-f", &classic("istio-rbac-namespace.yaml"), "--wait"]));
    assert_eq!(page().status, 403);

    // By service, one after the other.
    create("istio-rbac-productpage.yaml");
    shows("productpage", &[DETAILS, REVIEWS], &[STARS]);
    create("istio-rbac-details-reviews.yaml");
    shows("details-reviews", &["paperback", RATINGS], &[DETAILS, REVIEWS, STARS]);
    assert_eq!(status(mesh, "deploy/ratings-v1", &["http://details:9080/details/0"]), "403", "only productpage may");
    create("istio-rbac-ratings.yaml");
    shows("ratings", &["paperback", STARS], &[DETAILS, REVIEWS, RATINGS]);
    assert_eq!(status(mesh, "deploy/productpage-v1", &["http://ratings:9080/ratings/0"]), "403", "only reviews may");

    // Whoever has no role is refused by the rule, and the log of the one that is called says so.
    is_logged(mesh, "deploy/ratings-v1", "rule/mesh-system/rbaccheck[none]");
    for file in ["enable", "productpage", "details-reviews", "ratings"] {
        done(mesh.meshctl(&["delete", "-f", &classic(&format!("istio-rbac-{file}.yaml")), "--wait"]));
    }
    assert_eq!(status(mesh, "deploy/productpage-v1", &["http://ratings:9080/ratings/0"]), "200");
    done(mesh.meshctl(&["delete", "-f", &stars, "--wait"]));
}

pub(crate) fn the_classic_denial_by_account_does_as_it_is_what_its_task_describes(mesh: &Mesh) {
    const DETAILS: &str = "http://details:9080/details/0";
    let file = classic("mixer-rule-deny-serviceaccount.yaml");
    assert_eq!(status(mesh, "deploy/productpage-v1", &[DETAILS]), "200");
    done(mesh.meshctl(&["create", "-f", &file, "--wait"]));
    assert_eq!(status(mesh, "deploy/productpage-v1", &[DETAILS]), "403");
    assert_eq!(status(mesh, "deploy/reviews-v1", &[DETAILS]), "200", "another account");
    assert_eq!(status(mesh, "deploy/productpage-v1", &["http://ratings:9080/ratings/0"]), "200", "another service");
    let page = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
    assert!(page.status == 200 && page.body.contains("Error fetching product details!"), "{}", page.body);
    let says = "rule/default/denyproductpage[denier/default/denyproductpagehandler:_Not_allowed]";
    is_logged(mesh, "deploy/details-v1", says);
    let from = ["authz", "check", "--from", "deploy/productpage", "--to", "details:9080", "GET", "/details/0"];
    let told = mesh.meshctl(&from);
    assert!(told.code == 1 && told.stdout.contains("denied by rule/default/denyproductpage"), "{told:?}");
    // What of its sisters waits is told, and nothing of them is taken.
    let refused = mesh.meshctl(&["create", "-f", &classic("mixer-rule-deny-label.yaml")]);
    assert!(refused.code == 1 && refused.stderr.contains("`source.labels[\"app\"]` cannot be proved"), "{refused:?}");
    assert!(!mesh.meshctl(&["get", "deniers"]).ok().stdout.contains("denyreviewsv3handler"));
    done(mesh.meshctl(&["delete", "-f", &file, "--wait"]));
    assert_eq!(status(mesh, "deploy/productpage-v1", &[DETAILS]), "200");
}
