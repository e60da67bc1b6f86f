use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::{Server, until};

async fn token(server: &Server, audiences: &[&str], pod: Option<&str>) -> String {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client().await);
    until("the default service account", async || accounts.get_opt("default").await.expect("answered")).await;
    let bound = pod.map(|name| json!({"kind": "Pod", "apiVersion": "v1", "name": name}));
    let request: TokenRequest =
        serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": audiences, "boundObjectRef": bound}}))
            .expect("a request");
    let issued = accounts.create_token_request("default", &PostParams::default(), &request).await.expect("issued");
    issued.status.expect("an answer").token.expect("a token")
}

async fn review(
    server: &Server,
    token: &str,
    audiences: &[&str],
) -> k8s_openapi::api::authentication::v1::TokenReviewStatus {
    let reviews: Api<TokenReview> = Api::all(server.client().await);
    let asked = serde_json::from_value(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}))
        .expect("a review");
    reviews.create(&PostParams::default(), &asked).await.expect("reviewed").status.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_tells_account_pod_and_audience_and_ends_with_its_pod() {
    let server = Server::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("created");
    let token = token(&server, &["mesh-pilot"], Some("p")).await;
    let status = review(&server, &token, &["mesh-pilot", "other"]).await;
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.audiences, Some(vec!["mesh-pilot".to_owned()]));
    let user = status.user.expect("a user");
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:default"));
    assert_eq!(user.extra.expect("extra")["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(review(&server, &token, &["other"]).await.authenticated, Some(false));
    assert_eq!(review(&server, &token, &[]).await.authenticated, Some(false), "it is not for the API itself");
    server.api.store().delete("pods", "default", "p", &local::api::DeleteOptions::now()).expect("deleted");
    let status = review(&server, &token, &["mesh-pilot"]).await;
    assert!(status.error.is_some_and(|error| error.contains("has been deleted")));
    server.stop().await;
}

/// The same token as if it had been issued that much later, or earlier.
fn at_another_time(server: &Server, token: &str, seconds: i64) -> String {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["mesh-pilot"]);
    let pki = server.api.pki();
    let checking = DecodingKey::from_ec_pem(pki.token_public.as_bytes()).expect("a key");
    let mut claims = decode::<serde_json::Value>(token, &checking, &validation).expect("a good token").claims;
    for claim in ["exp", "iat", "nbf"] {
        claims[claim] = json!(claims[claim].as_i64().expect("a time") + seconds);
    }
    let signing = EncodingKey::from_ec_pem(pki.token_key.as_bytes()).expect("a key");
    encode(&Header::new(Algorithm::ES256), &claims, &signing).expect("signed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_the_clock_was_set_back_holds_to_its_end() {
    let server = Server::start().await;
    let token = token(&server, &["mesh-pilot"], None).await;
    for (hours, holds) in [(25, true), (0, true), (-25, false)] {
        let token = at_another_time(&server, &token, hours * 3600);
        let status = review(&server, &token, &["mesh-pilot"]).await;
        assert_eq!(status.authenticated, Some(holds), "{hours} hours: {:?}", status.error);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_may_do_what_its_roles_say() {
    let server = Server::start().await;
    let token = token(&server, &[], None).await;
    let client = server.client_with_token(&token).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let refused = maps.list(&ListParams::default()).await.expect_err("no role yet");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 403 && status.message.contains("system:serviceaccount:default:default"))
    );
    let store = server.api.store();
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    store
        .create(
            "roles.rbac.authorization.k8s.io",
            json!({"metadata": {"name": "r", "namespace": "default"}, "rules": rules}),
        )
        .expect("created");
    let subjects = json!([{"kind": "ServiceAccount", "name": "default"}]);
    let binding = json!({"metadata": {"name": "b", "namespace": "default"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects});
    store.create("rolebindings.rbac.authorization.k8s.io", binding).expect("created");
    maps.list(&ListParams::default()).await.expect("allowed now");
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    assert!(secrets.list(&ListParams::default()).await.is_err());
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    for (resource, expected) in [("configmaps", true), ("secrets", false)] {
        let asked = json!({"metadata": {}, "spec": {"resourceAttributes": {"verb": "get", "resource": resource, "namespace": "default"}}});
        let answer = reviews
            .create(&PostParams::default(), &serde_json::from_value(asked).expect("a review"))
            .await
            .expect("reviewed");
        assert_eq!(answer.status.expect("an answer").allowed, expected, "{resource}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_credentials() {
    let server = Server::start().await;
    let mut config = server.config().await;
    config.auth_info = kube::config::AuthInfo::default();
    let anonymous: Api<ConfigMap> = Api::default_namespaced(kube::Client::try_from(config).expect("a client"));
    let refused = anonymous.list(&ListParams::default()).await.expect_err("refused");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 401 && status.reason == "Unauthorized"),
        "{refused}"
    );
    let forged: Api<ConfigMap> = Api::default_namespaced(server.client_with_token("a.b.c").await);
    let refused = forged.list(&ListParams::default()).await.expect_err("refused");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 401), "{refused}");
    server.stop().await;
}

/// A connection by TLS, as a client's pool holds it.
async fn connect(server: &Server) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = server.config().await;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in config.root_cert.as_deref().unwrap_or_default() {
        roots.add(CertificateDer::from(certificate.clone())).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let port = config.cluster_url.port_u16().expect("a port");
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("a handshake")
}

async fn asks(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: api\r\n\r\n").await.expect("sends");
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).await.expect("an answer");
    String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned()
}

#[tokio::test]
async fn a_connection_that_rests_is_kept_for_longer_than_clients_keep_theirs() {
    let server = Server::start().await;
    let mut resting = connect(&server).await;
    assert!(asks(&mut resting).await.starts_with("HTTP/1.1 "));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(90)).await;
    tokio::time::resume();
    // The server has had its turn when another is served.
    assert!(asks(&mut connect(&server).await).await.starts_with("HTTP/1.1 "));
    let answer = asks(&mut resting).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
    server.stop().await;
}
