//! The admission webhooks, asked as the API server asks them.

use serde_json::{Value, json};

use crate::harness::{self, Mesh};
use crate::rule;

#[tokio::test]
async fn a_pod_gets_its_sidecar_and_an_injected_one_stays_as_it_is() {
    let mesh = Mesh::start().await;
    let ask = async |pod: Value| {
        let (status, body) = mesh.admit("/inject", "Pod", &pod).await;
        assert_eq!(status, 200, "{body}");
        let review: Value = serde_json::from_str(&body).expect("a review");
        assert_eq!(review["response"]["uid"], "u1");
        review["response"].clone()
    };
    let pod = harness::pod("reviews", "v1", "10.244.0.10");
    let response = ask(pod.clone()).await;
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let patch: json_patch::Patch = serde_json::from_slice(&patch_bytes(&response)).expect("a patch");
    let mut injected = pod;
    json_patch::patch(&mut injected, &patch).expect("it applies");
    let containers = injected["spec"]["initContainers"].as_array().expect("init containers");
    assert_eq!((&containers[0]["name"], &containers[1]["name"]), (&json!("mesh-init"), &json!("mesh-proxy")));
    assert!(injected.to_string().contains("BEGIN CERTIFICATE"), "with the root that vouches for Pilot");
    let again = ask(injected).await;
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
    let mut odd = harness::pod("odd", "v1", "10.244.0.11");
    odd["spec"]["containers"][0]["name"] = json!("mesh-proxy");
    let refused = ask(odd).await;
    assert_eq!(refused["allowed"], json!(false));
    let message = refused["status"]["message"].as_str().expect("a message");
    assert!(message.contains("a container is already called `mesh-proxy`"), "{message}");
    mesh.stop().await;
}

/// The patch's bytes, as JSON or in base64.
fn patch_bytes(response: &Value) -> Vec<u8> {
    let text = response["patch"].as_str().expect("a patch");
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("base64")
}

#[tokio::test]
async fn an_object_is_refused_with_all_its_problems_in_one_message() {
    let mesh = Mesh::start().await;
    let object = |yaml: &str| {
        let (objects, _) = api::yaml::parse("t.yaml", yaml);
        objects[0].to_json()
    };
    let bad = object(&rule("bad", "v1", "    weight: 90\n  precedance: 2\n"));
    let (status, body) = mesh.admit("/validate", "RouteRule", &bad).await;
    let review: Value = serde_json::from_str(&body).expect("a review");
    assert_eq!((status, &review["response"]["allowed"]), (200, &json!(false)));
    let message = review["response"]["status"]["message"].as_str().expect("a message");
    assert!(message.contains("90") && message.contains("precedance") && message.contains("precedence"), "{message}");
    let good = object(&rule("good", "v1", ""));
    let (_, body) = mesh.admit("/validate", "RouteRule", &good).await;
    let review: Value = serde_json::from_str(&body).expect("a review");
    assert_eq!(review["response"]["allowed"], json!(true), "{review}");
    mesh.stop().await;
}

#[tokio::test]
async fn what_is_no_review_is_refused_by_the_webhooks() {
    let mesh = Mesh::start().await;
    for (content_type, body, expected) in [
        ("text/plain", "{}", 415),
        ("application/json", "", 400),
        ("application/json", "{", 400),
        (
            "application/json; charset=utf-8",
            "{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\"}",
            400,
        ),
    ] {
        for path in ["/inject", "/validate"] {
            let (status, answer) = mesh.webhook(path, content_type, body).await;
            assert_eq!(status, expected, "{path} {content_type} {body}: {answer}");
        }
    }
    mesh.stop().await;
}
