use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;

async fn pod(server: &Server) -> Api<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("created");
    pods
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_whole_or_from_their_tail() {
    let server = Server::start().await;
    let pods = pod(&server).await;
    let params = LogParams { container: Some("c".into()), ..LogParams::default() };
    assert_eq!(pods.logs("p", &params).await.expect("logs"), "one\ntwo\nthree\n");
    let tail = LogParams { tail_lines: Some(1), ..params };
    assert_eq!(pods.logs("p", &tail).await.expect("logs"), "three\n");
    let unclear = pods.logs("p", &LogParams::default()).await.expect_err("two containers");
    assert!(unclear.to_string().contains("choose one of: [c d]"), "{unclear}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_input_gives_output_and_tells_its_exit_code() {
    let server = Server::start().await;
    let pods = pod(&server).await;
    let params = AttachParams::default().container("c").stdin(true).stderr(false);
    let mut process = pods.exec("p", ["cat"], &params).await.expect("started");
    let mut stdin = process.stdin().expect("input");
    stdin.write_all(b"hello").await.expect("written");
    stdin.shutdown().await.expect("closed");
    drop(stdin);
    let mut output = String::new();
    process.stdout().expect("output").read_to_string(&mut output).await.expect("read");
    assert_eq!(output, "hello");
    let status = process.take_status().expect("a status").await.expect("an exit");
    assert_eq!(status.status.as_deref(), Some("Success"));
    let params = AttachParams::default().container("d").stderr(false);
    let mut process = pods.exec("p", ["exit", "3"], &params).await.expect("started");
    let status = process.take_status().expect("a status").await.expect("an exit");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.and_then(|it| it.causes).expect("causes")[0].message.as_deref(), Some("3"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_and_a_dead_one_says_why() {
    let server = Server::start().await;
    let pods = pod(&server).await;
    let mut forwarder = pods.portforward("p", &[7, 8]).await.expect("forwarded");
    let mut stream = forwarder.take_stream(7).expect("a stream");
    stream.write_all(b"ping").await.expect("written");
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.expect("read");
    assert_eq!(&echoed, b"ping");
    let error = forwarder.take_error(8).expect("an error channel").await;
    assert_eq!(error.as_deref(), Some("nothing listens on port 8"));
    stream.write_all(b"quit").await.expect("written");
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.expect("the pod's end is seen");
    server.stop().await;
}
