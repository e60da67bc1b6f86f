//! Ports of this machine that lead into pods.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_tests::http::Client;
use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{eventually, run};

/// A running `local port-forward`, and where it listens.
struct Forward {
    child: Child,
    addresses: Vec<String>,
}

impl Forward {
    fn start(mesh: &Mesh, arguments: &[&str], lines: usize) -> Self {
        let all = [&["local", "port-forward"][..], arguments].concat();
        let mut child = mesh.command(&all).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let address = |line: String| {
            let (here, _there) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
            Some(here.to_owned())
        };
        let lines: Vec<String> = output.lines().take(lines).map(|line| line.expect("text")).collect();
        let addresses = lines.iter().map(|line| address(line.clone()).unwrap_or_else(|| panic!("{lines:?}"))).collect();
        Forward { child, addresses }
    }

    /// Ends it as Ctrl-C does; gives its exit code.
    fn interrupt(mut self) -> Option<i32> {
        let _ = run(Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())])).ok();
        self.child.wait().expect("it ends").code()
    }
}

pub(crate) fn ports_are_forwarded_by_many_connections_and_over_the_end_of_a_pod(mesh: &Mesh) {
    mesh.without_rules();
    let forward = Forward::start(mesh, &["svc/ratings", ":9080"], 2);
    let (v4, v6) = (&forward.addresses[0], &forward.addresses[1]);
    assert!(v4.starts_with("127.0.0.1:") && v6.starts_with("[::1]:"), "{v4} {v6}");
    assert_eq!(v4.rsplit(':').next(), v6.rsplit(':').next(), "one port for both families");
    let ratings = |address: &str| {
        let answer = Client::new(address).get("/ratings/0", &[]).expect("an answer");
        assert!(answer.status == 200 && answer.body.contains("Reviewer1"), "{answer:?}");
    };
    std::thread::scope(|scope| {
        for client in 0..100 {
            scope.spawn(move || ratings(if client % 2 == 0 { v4 } else { v6 }));
        }
    });
    let pod = mesh.meshctl(&["get", "pods", "-l", "app=ratings", "-o", "name"]).ok().stdout;
    let _ = mesh.meshctl(&["delete", pod.trim()]).ok();
    eventually(Duration::from_secs(20), || {
        let now = mesh.meshctl(&["get", "pods", "-l", "app=ratings", "-o", "name"]).ok().stdout;
        if now != pod && now.lines().count() == 1 { Ok(()) } else { Err(now) }
    });
    eventually(Duration::from_secs(10), || {
        let answer = Client::new(v4).get("/ratings/0", &[]).map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(forward.interrupt(), Some(0), "Ctrl-C is how it ends");
}

pub(crate) fn a_port_that_is_taken_or_unknown_is_told(mesh: &Mesh) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let told = |arguments: &[&str], code: i32, words: &[&str]| {
        let ran = mesh.meshctl(&[&["local", "port-forward"][..], arguments].concat());
        assert_eq!(ran.code, code, "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
    };
    let typed = format!("{port}:9080");
    told(&["svc/ratings", &typed], 1, &[&format!("cannot listen on 127.0.0.1:{port}"), "hint: choose another port"]);
    told(&["svc/ratings", "81"], 1, &["service default/ratings has no port `81`", "hint: its ports: 9080 (http)"]);
    told(&["svc/rating", "9080"], 1, &["there is no service `rating`", "did you mean `service/ratings`?"]);
    told(&["svc/ratings", "x:9080"], 2, &["`x:9080` is not [LOCAL:]REMOTE", "hint:"]);
    // Nobody listens there: the client sees a reset, the person why.
    let mut forward = mesh.command(&["local", "port-forward", "deploy/ratings-v1", ":9"]);
    let mut child = forward.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    let address = first.trim_start_matches("Forwarding from ").trim_end_matches(" -> 9").to_owned();
    assert!(Client::new(&address).get("/", &[]).is_err());
    let said = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let said = said.into_iter().find(|line| line.contains("cannot connect to port 9 of pod"));
    assert!(said.is_some(), "it is said why");
    let _ = child.kill();
    let _ = child.wait();
}

const BALANCED: &str = "\
apiVersion: v1
kind: Service
metadata: {name: ratings-outside}
spec:
  type: LoadBalancer
  selector: {app: ratings}
  ports: [{name: http, port: 19080, targetPort: 9080}]
";

pub(crate) fn every_balanced_service_has_a_port_of_this_machine(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl_with_input(&["create", "-f", "-"], BALANCED).ok();
    let port = eventually(Duration::from_secs(10), || {
        let status = mesh.json(&["local", "status", "-o", "json"]);
        let ports = status["hostPorts"].as_array().cloned().unwrap_or_default();
        match ports.first().and_then(|port| port["hostPort"].as_u64()) {
            Some(port) if ports[0]["service"] == "ratings-outside" => Ok(port),
            _ => Err(status["hostPorts"].to_string()),
        }
    });
    assert!(port >= 19080, "the port that it has, or one after it: {port}");
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let answer = Client::new(&address).get("/ratings/0", &[]).expect("it answers");
        assert!(answer.status == 200 && answer.body.contains("Reviewer1"), "{address}: {answer:?}");
    }
    let status = mesh.meshctl(&["local", "status"]).ok().stdout;
    assert!(status.contains(&format!("127.0.0.1:{port} -> service default/ratings-outside:19080")), "{status}");
    assert_eq!(Client::new(mesh.gateway()).get("/productpage", &[]).expect("it answers").status, 200);
    let _ = mesh.meshctl_with_input(&["delete", "-f", "-"], BALANCED).ok();
    eventually(Duration::from_secs(10), || {
        match std::net::TcpStream::connect(("127.0.0.1", port.try_into().unwrap_or(0))) {
            Ok(_) => Err("the port is open still".to_owned()),
            Err(_) => Ok(()),
        }
    });
}
