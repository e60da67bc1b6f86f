//! Bytes of applications that know nothing of the mesh.

use mesh_tests::mesh::Mesh;

pub(crate) fn the_gateway_serves_the_page(mesh: &Mesh) {
    let answer = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("The Comedy of Errors"), "{}", answer.body);
    assert!(answer.body.contains("Book Details"), "{}", answer.body);
}

pub(crate) fn requests_between_pods_pass_both_sidecars(mesh: &Mesh) {
    let marker = "x-request-id: both-sidecars";
    let ran = mesh.exec("deploy/productpage-v1", &["curl", "-s", "-H", marker, "http://ratings:9080/ratings/7"]).ok();
    assert!(ran.stdout.contains("\"Reviewer1\""), "{}", ran.stdout);
    for pod in ["deploy/productpage-v1", "deploy/ratings-v1"] {
        mesh_tests::programs::eventually(std::time::Duration::from_secs(5), || {
            let log = mesh.meshctl(&["local", "logs", pod, "-c", "mesh-proxy"]).ok().stdout;
            if log.contains("both-sidecars") { Ok(()) } else { Err(format!("not in the access log of {pod}:\n{log}")) }
        });
    }
}

pub(crate) fn an_unknown_path_at_the_gateway_has_no_route(mesh: &Mesh) {
    let answer = mesh.browser().get("/nowhere", &[]).expect("the gateway answers");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-mesh-failure"), Some("no_route"));
}
