//! A clock that is set, forward and back: whatever runs goes on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::namespace::Namespace;
use mesh_tests::programs::{eventually, run};

use crate::life::under_load;

/// A wall clock for the API, the controllers and the node of a mesh, which can be set; pods have the machine's.
///
/// Nobody but root may set a machine's clock, and then for everybody. So these programs are loaded with another
/// `clock_gettime`, named in the `/etc/ld.so.preload` of a namespace.
struct Clock {
    namespace: Namespace,
    directory: PathBuf,
}

impl Clock {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("{}-clock", std::process::id()));
        let etc = directory.join("etc");
        std::fs::create_dir_all(&directory).expect("made");
        // What an ordinary user may not read is not needed.
        let _ = run(Command::new("cp").args(["-a", "/etc"]).arg(&directory));
        let source = directory.join("clock.c");
        std::fs::write(&source, include_str!("clock.c")).expect("written");
        let library = etc.join("clock.so");
        let _ = run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source)).ok();
        std::fs::write(etc.join("clock-ahead"), 0_i64.to_ne_bytes()).expect("written");
        std::fs::write(etc.join("ld.so.preload"), "/etc/clock.so\n").expect("written");
        Clock { namespace: Namespace::with("mount --rbind \"$0/etc\" /etc", &directory), directory }
    }

    /// Sets it, relative to the machine's.
    fn set(&self, ahead: Duration, is_ahead: bool) {
        let seconds = i64::try_from(ahead.as_secs()).expect("a step");
        let seconds = if is_ahead { seconds } else { -seconds };
        let file = OpenOptions::new().write(true).open(self.directory.join("etc/clock-ahead"));
        file.and_then(|mut file| file.write_all(&seconds.to_ne_bytes())).expect("written in its place");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The token that a pod's application has for the API.
fn token(mesh: &Mesh) -> String {
    let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    mesh.exec("deploy/productpage-v1", &["cat", path]).ok().stdout
}

/// Waits until the node has noticed a step: the pod has another token.
fn is_noticed(mesh: &Mesh, before: &str) -> String {
    eventually(Duration::from_secs(20), || {
        let now = token(mesh);
        if now == before { Err("the token is the old one".to_owned()) } else { Ok(now) }
    })
}

fn restarts(mesh: &Mesh) -> Vec<u64> {
    let status = mesh.json(&["local", "status", "-o", "json"]);
    let pods = status["pods"].as_array().cloned().unwrap_or_default();
    pods.iter().filter_map(|pod| pod["restarts"].as_u64()).collect()
}

pub(crate) fn a_clock_that_is_set_interrupts_nothing(_: &Mesh) {
    const STEP: Duration = Duration::from_secs(25 * 3600);
    let clock = Clock::new();
    let before = clock.namespace.enter(&clock.directory);
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let mesh = Mesh::with("clock", &["-f", &Mesh::sample("bookinfo.yaml")], &before);
    let (rule, other) = (Mesh::sample("route-rule-all-v1.yaml"), Mesh::sample("route-rule-reviews-test-v2.yaml"));
    let sent = under_load(&mesh, || {
        let first = token(&mesh);
        clock.set(STEP, true);
        let second = is_noticed(&mesh, &first);
        // Not waited for: Pilot has the machine's clock, and shows a token that has ended for the API until it reads the new one.
        let _ = mesh.meshctl(&["create", "-f", &rule]).ok();
        clock.set(Duration::ZERO, true);
        let third = is_noticed(&mesh, &second);
        let _ = mesh.meshctl(&["local", "scale", "deploy/details-v1", "--replicas", "2", "--wait"]).ok();
        // Every token is from the future now, and holds.
        clock.set(STEP, false);
        let _ = mesh.meshctl(&["create", "-f", &other, "--wait"]).ok();
        let _ = is_noticed(&mesh, &third);
        let _ = mesh.meshctl(&["delete", "-f", &other, "--wait"]).ok();
    });
    println!("  {sent} pages while the clock was set by 25 hours, there and back, none failed");
    let events = mesh.meshctl(&["get", "events", "-A"]).ok().stdout;
    assert!(events.contains("ClockStepped") && events.contains("the clock was set by 25h"), "{events}");
    assert!(restarts(&mesh).iter().all(|count| *count == 0), "nothing was restarted");
    assert!(mesh.json(&["get", "route-rule", "reviews-default", "-o", "json"])["metadata"].is_object());
}
