//! How meshes and their parts begin, end and come back.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, run};

use crate::routing::reviews;

/// An application that asks another as its first deed and as its last.
const EARLY_AND_LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: early-and-late}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: app
    image: none
    command:
    - sh
    - -c
    - |
      ask() { curl -s -m 10 -o /dev/null -w "$1 %{http_code}\n" -H "x-mark: teapot" http://reviews:9080/reviews/0; }
      ask first
      trap "ask last; exit 0" TERM
      while true; do sleep 0.1; done
"#;

pub(crate) fn a_sidecar_is_there_before_its_application_and_after_it(mesh: &Mesh) {
    mesh.without_rules();
    // Only a proxy answers like that.
    let teapot = ["--destination", "reviews", "--match-header", "x-mark=exact:teapot", "--abort", "418:100", "--wait"];
    let _ = mesh.meshctl(&[&["create", "route-rule", "teapot"][..], &teapot].concat()).ok();
    let file = Scratch::file("early-and-late.yaml", EARLY_AND_LATE);
    let _ = mesh.meshctl(&["create", "-f", file.path()]).ok();
    eventually(Duration::from_secs(30), || {
        let log = mesh.meshctl(&["local", "logs", "early-and-late"]).stdout;
        if log.contains("first ") { Ok(()) } else { Err(format!("the application has not begun: {log}")) }
    });
    let mut following =
        mesh.command(&["local", "logs", "early-and-late", "-f"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let _ = mesh.meshctl(&["delete", "pod", "early-and-late"]).ok();
    let mut log = String::new();
    following.stdout.take().expect("a pipe").read_to_string(&mut log).expect("text");
    let _ = following.wait();
    assert_eq!(log, "first 418\nlast 418\n");
    mesh.without_rules();
}

/// The user namespace of a mesh: whatever is in it belongs to the mesh.
pub(crate) fn namespace_of(mesh: &Mesh) -> (u32, PathBuf) {
    let status = mesh.json(&["local", "status", "-o", "json"]);
    let supervisor = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process");
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).expect("/proc");
    let init = children.split_whitespace().next().expect("it has a child");
    (supervisor, std::fs::read_link(format!("/proc/{init}/ns/user")).expect("its namespace"))
}

/// Processes in a user namespace.
pub(crate) fn processes_in(namespace: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/user")).is_ok_and(|it| it == namespace)).collect()
}

pub(crate) fn kill(pid: u32) {
    let _ = run(Command::new("sh").args(["-c", &format!("kill -KILL {pid}")])).ok();
}

/// Ends a load when it goes out of scope: without it the load of a test that fails would never end.
pub(crate) struct Until<'a>(pub(crate) &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pages without a break, by two browsers, while something happens; gives their number. None may fail.
pub(crate) fn under_load(mesh: &Mesh, what: impl FnOnce()) -> usize {
    let over = AtomicBool::new(false);
    let browse = || {
        let (mut browser, mut sent) = (mesh.browser(), 0_usize);
        while !over.load(Ordering::Relaxed) {
            let page = browser.get("/productpage", &[]).expect("the gateway answers");
            assert!(page.status == 200 && !page.body.contains("unavailable"), "request {sent}: {}", page.body);
            sent += 1;
        }
        sent
    };
    std::thread::scope(|scope| {
        let load = [scope.spawn(browse), scope.spawn(browse)];
        let end = Until(&over);
        what();
        drop(end);
        load.into_iter().map(|browser| browser.join().expect("no request failed")).sum()
    })
}

fn pilots(mesh: &Mesh) -> Vec<serde_json::Value> {
    let pods = mesh.json(&["get", "pods", "-n", "mesh-system", "-l", "app=mesh-pilot", "-o", "json"]);
    pods["items"].as_array().cloned().unwrap_or_default()
}

pub(crate) fn without_pilot_traffic_goes_on_and_rules_work_again_when_it_is_back(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-v3.yaml"), "--wait"]).ok();
    let (_, namespace) = namespace_of(mesh);
    let restarts = |pods: &[serde_json::Value]| {
        pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).max()
    };
    let before = restarts(&pilots(mesh));
    let sent = under_load(mesh, || {
        let pilot = processes_in(&namespace).into_iter().find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|it| {
                it.split(|byte| *byte == 0).next().is_some_and(|program| program.ends_with(b"mesh-pilot"))
            })
        });
        kill(pilot.expect("Pilot runs"));
        eventually(Duration::from_secs(10), || {
            let pods = pilots(mesh);
            if restarts(&pods) > before { Ok(()) } else { Err(format!("Pilot was not restarted: {pods:?}")) }
        });
        let _ = reviews(mesh, 200, &[]);
        eventually(Duration::from_secs(60), || {
            let ran = mesh.meshctl(&["replace", "-f", &Mesh::sample("route-rule-reviews-v2-v3.yaml"), "--wait"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
        let seen = reviews(mesh, 200, &[]);
        assert!(seen.contains_key("v2") && seen.contains_key("v3") && seen.len() == 2, "{seen:?}");
    });
    println!("  {sent} pages while Pilot was killed and came back, none failed");
    assert!(sent > 10, "{sent}");
}

/// Asserts that nothing of a mesh is left on this machine.
pub(crate) fn nothing_is_left(namespace: &Path, state_dir: &str, addresses: &[String]) {
    eventually(Duration::from_secs(10), || {
        let left = processes_in(namespace);
        if left.is_empty() { Ok(()) } else { Err(format!("processes are left: {left:?}")) }
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(state_dir), "a mount is left:\n{mounts}");
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "somebody listens on {address}");
    }
}

/// The network interfaces of this machine.
fn interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").expect("/sys").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn two_meshes_live_side_by_side_and_a_killed_one_comes_back_with_its_rules(mesh: &Mesh) {
    mesh.without_rules();
    let interfaces_before = interfaces();
    let mut second = Mesh::with_bookinfo("second");
    assert_ne!(second.gateway(), mesh.gateway());
    let _ = second.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-v3.yaml"), "--wait"]).ok();
    assert_eq!(reviews(&second, 100, &[]).keys().collect::<Vec<_>>(), [&"v3"]);
    assert_eq!(reviews(mesh, 100, &[]).len(), 3, "the rule is of the second mesh alone");

    let addresses = |status: &serde_json::Value| {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let api = text("api").trim_start_matches("https://").to_owned();
        (text("stateDir"), vec![api, text("gateway").trim_start_matches("http://").to_owned()])
    };
    let (supervisor, namespace) = namespace_of(&second);
    let (state_dir, open) = addresses(&second.json(&["local", "status", "-o", "json"]));
    assert!(processes_in(&namespace).len() > 8 * 2, "that many pods have more processes");
    assert!(open.iter().all(|address| TcpStream::connect(address).is_ok()), "{open:?}");
    kill(supervisor);
    nothing_is_left(&namespace, &state_dir, &open);
    let status = second.meshctl(&["local", "status"]);
    assert!(status.code == 3 && status.stderr.contains("does not run"), "{status:?}");
    assert_eq!(reviews(mesh, 100, &[]).len(), 3, "the first mesh lives on");

    // Its old port for clients of the API may have been taken meanwhile.
    let taken = TcpListener::bind(&open[0]).expect("the port is free");
    second.up(&[]);
    let (_, anew) = addresses(&second.json(&["local", "status", "-o", "json"]));
    assert_ne!(anew[0], open[0]);
    drop(taken);
    assert_eq!(reviews(&second, 100, &[]).keys().collect::<Vec<_>>(), [&"v3"], "the rule is in force again");
    let page = second.browser().get("/productpage", &[]).expect("the gateway answers");
    assert!(page.status == 200 && page.body.contains("color=\"red\""), "{}", page.body);

    let (_, namespace) = namespace_of(&second);
    let (state_dir, open) = addresses(&second.json(&["local", "status", "-o", "json"]));
    let _ = second.meshctl(&["local", "down"]).ok();
    nothing_is_left(&namespace, &state_dir, &open);
    assert_eq!(interfaces(), interfaces_before);
    assert!(Path::new(&state_dir).join("kubeconfig").exists(), "what the mesh knows is kept");
    let _ = second.meshctl(&["local", "down", "--purge"]).ok();
    assert!(!Path::new(&state_dir).exists(), "unless it is purged");
}
