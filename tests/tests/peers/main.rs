//! Programs that others wrote, against a proxy with a configuration from a file. Needs `scripts/get-peers`.

mod envoy;
mod identities;
mod outside;
mod proxy;
mod spiffe;
#[allow(dead_code, reason = "the harness is shared with the CA's tests")]
#[path = "../../../ca/tests/ca/world.rs"]
mod world;

use std::process::{Child, Command, Stdio};

use mesh_tests::programs::{peer, run};

use self::proxy::{Backend, Proxy, free_port};

/// A program that runs beside the test, ended with it.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cases of the specification: all but the one that wants a connection without a preface to be closed without a word,
/// where a server that speaks HTTP/1.1 as well says what is wrong.
#[test]
fn h2spec_finds_the_proxy_to_be_a_server_of_http2() {
    let Some(h2spec) = peer("h2spec") else { return };
    let backend = Backend::start();
    let proxy = Proxy::start(backend.port, "http");
    let ran = run(Command::new(h2spec).args(["-h", "127.0.0.1", "-o", "10", "-p", &proxy.port.to_string()]));
    let summary = ran.stdout.lines().rfind(|line| line.contains("tests,")).unwrap_or_default().to_owned();
    let count = |word: &str| -> usize {
        let part = summary.split(", ").find(|part| part.contains(word)).expect("the summary has it");
        part.trim_end_matches('.').split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    assert!(count("tests") >= 145 && count("failed") <= 1, "{summary}\n{}", ran.stdout);
    assert!(count("failed") == 0 || ran.stdout.contains("2: Sends invalid connection preface"), "{}", ran.stdout);
}

/// gRPC's own cases of interoperability, through one proxy.
#[test]
fn calls_of_grpc_pass_as_they_are() {
    let (Some(server), Some(client)) = (peer("grpc-interop-server"), peer("grpc-interop-client")) else { return };
    let port = free_port();
    let mut server = Command::new(server);
    server.args(["-port", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Beside(server.spawn().expect("it starts"));
    proxy::wait_for(port);
    let proxy = Proxy::start(port, "http2");
    for case in [
        "empty_unary",
        "large_unary",
        "client_streaming",
        "server_streaming",
        "ping_pong",
        "empty_stream",
        "timeout_on_sleeping_server",
        "cancel_after_begin",
        "cancel_after_first_response",
        "status_code_and_message",
        "special_status_message",
        "custom_metadata",
        "unimplemented_method",
        "unimplemented_service",
    ] {
        let port = proxy.port.to_string();
        let _ =
            run(Command::new(&client).args(["-server_host", "127.0.0.1", "-server_port", &port, "-test_case", case]))
                .ok();
    }
}
