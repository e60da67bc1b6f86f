//! `kill -9` of any part at any moment: what was acknowledged is there, everything comes back, nothing is left behind.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_tests::mesh::Mesh;
use mesh_tests::offline::dice;
use mesh_tests::programs::{Scratch, eventually};

use crate::life::{kill, namespace_of, processes_in};

/// Rounds of the loop; each kills one part at a moment of its own.
const ROUNDS: usize = 12;

const APPLICATION: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - {name: app, image: own/echo, readinessProbe: {httpGet: {path: /health, port: 9080}}}
";

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// The process that owns the host's ports.
    Supervisor,
    /// PID 1 of the mesh: API, controllers and node.
    Api,
    /// What starts all processes.
    Launcher,
    Pilot,
    Proxy,
    Application,
}

const PARTS: [Part; 6] = [Part::Supervisor, Part::Api, Part::Launcher, Part::Pilot, Part::Proxy, Part::Application];

impl Part {
    /// A process of the part, now.
    fn process(self, mesh: &Mesh, throw: u64) -> Option<u32> {
        let (supervisor, namespace) = namespace_of(mesh);
        let named = |name: &str| {
            let mut found: Vec<u32> = processes_in(&namespace)
                .into_iter()
                .filter(|pid| program_of(*pid).is_some_and(|it| it == name))
                .collect();
            found.sort_unstable();
            let at = usize::try_from(throw).unwrap_or(0) % found.len().max(1);
            found.get(at).copied()
        };
        match self {
            Part::Supervisor => Some(supervisor),
            Part::Api => init_of(supervisor),
            Part::Launcher => processes_in(&namespace).into_iter().find(|pid| comm_of(*pid) == "mesh-launcher"),
            Part::Pilot => named("mesh-pilot"),
            Part::Proxy => named("mesh-proxy"),
            Part::Application => named("bookinfo"),
        }
    }

    /// Whether the whole mesh ends with it.
    fn is_everything(self) -> bool {
        matches!(self, Part::Supervisor | Part::Api | Part::Launcher)
    }
}

fn program_of(pid: u32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = words.split(|byte| *byte == 0).next()?;
    Some(Path::new(std::str::from_utf8(program).ok()?).file_name()?.to_string_lossy().into_owned())
}

fn comm_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn init_of(supervisor: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn rule(number: usize) -> String {
    format!(
        "apiVersion: config.meshctl.io/v1alpha2\nkind: RouteRule\nmetadata: {{name: rule-{number}}}\nspec:\n  destination: {{name: echo}}\n  match: {{request: {{headers: {{x-rule: {{exact: \"{number}\"}}}}}}}}\n  httpFault: {{abort: {{percent: 100, httpStatus: {}}}}}\n",
        400 + number % 50
    )
}

/// Everything that a mesh is to be when it has come back.
fn is_whole(mesh: &Mesh, acknowledged: &[usize]) -> Result<(), String> {
    let ran = mesh.meshctl(&["get", "route-rules", "-o", "name"]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|it| !ran.stdout.lines().any(|line| line == format!("route-rule/rule-{it}")))
        .collect();
    // This cannot heal.
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let status = mesh.json(&["local", "status", "-o", "json"]);
    let pods = status["pods"].as_array().cloned().unwrap_or_default();
    let unready: Vec<_> = pods.iter().filter(|pod| pod["ready"] != true).map(|pod| pod["name"].to_string()).collect();
    if pods.len() != 5 || !unready.is_empty() {
        return Err(format!("{} pods, not ready: {unready:?}", pods.len()));
    }
    let answer = mesh.exec(
        "deploy/echo",
        &["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://echo:9080/health"],
    );
    if answer.stdout == "200" { Ok(()) } else { Err(format!("{answer:?}")) }
}

pub(crate) fn whatever_is_killed_comes_back_and_nothing_is_lost(_: &Mesh) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |it| it.as_secs());
    println!("  seed {seed}");
    let mut throw = dice(seed);
    let file = Scratch::file("echo.yaml", APPLICATION);
    let mut mesh = Mesh::with("crash", &["-f", file.path(), "--image", "own/echo=bookinfo ratings"], &[]);
    let state_dir =
        mesh.json(&["local", "status", "-o", "json"])["stateDir"].as_str().map(PathBuf::from).expect("a path");
    let mut acknowledged: Vec<usize> = Vec::new();
    let mut written = 0;
    for round in 0..ROUNDS {
        // Every part has its turn, in an order and at moments that the dice choose.
        let chosen = usize::try_from(throw() % 6).unwrap_or(0);
        let part = PARTS.get(round).copied().unwrap_or(PARTS[chosen]);
        let (_, namespace) = namespace_of(&mesh);
        let open = mesh.gateway().to_owned();
        let victim = part.process(&mesh, throw()).unwrap_or_else(|| panic!("round {round}: there is no {part:?}"));
        let after = Duration::from_millis(throw() % 150);
        let first = written;
        let ended = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                std::thread::park_timeout(after);
                kill(victim);
            });
            // Rules are written until one is refused, or enough are.
            while written < first + 12 {
                let ran = mesh.meshctl_with_input(&["create", "-f", "-"], &rule(written));
                written += 1;
                if ran.code == 0 {
                    acknowledged.push(written - 1);
                } else if killer.is_finished() {
                    break;
                }
            }
            killer.join().is_ok()
        });
        assert!(ended, "round {round}: {part:?}");
        println!("  round {round}: {part:?} killed after {after:?}, {} rules acknowledged so far", acknowledged.len());
        if part.is_everything() {
            eventually(Duration::from_secs(10), || {
                let left = processes_in(&namespace);
                if left.is_empty() { Ok(()) } else { Err(format!("round {round}: orphans of {part:?}: {left:?}")) }
            });
            let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
            assert!(!mounts.contains(&*state_dir.to_string_lossy()), "a mount is left:\n{mounts}");
            assert!(TcpStream::connect(&open).is_err(), "somebody listens on {open}");
            mesh.up(&[]);
        }
        eventually(Duration::from_secs(60), || {
            is_whole(&mesh, &acknowledged).map_err(|e| format!("round {round}, {part:?}: {e}"))
        });
    }
    assert!(acknowledged.len() >= ROUNDS, "{acknowledged:?}");
    let (_, namespace) = namespace_of(&mesh);
    drop(mesh);
    assert!(processes_in(&namespace).is_empty(), "orphans");
    assert!(!state_dir.exists(), "state");
}

pub(crate) fn a_damaged_journal_is_told_and_recovered(_: &Mesh) {
    let mesh = Mesh::with("damaged", &[], &[]);
    for number in 0..3 {
        let _ = mesh.meshctl_with_input(&["create", "-f", "-"], &rule(number)).ok();
    }
    let state_dir =
        mesh.json(&["local", "status", "-o", "json"])["stateDir"].as_str().map(PathBuf::from).expect("a path");
    let _ = mesh.meshctl(&["local", "down"]).ok();
    let journal = state_dir.join("journal");
    let mut bytes = std::fs::read(&journal).expect("the journal");
    let word = b"\"x-rule\":{\"exact\":\"1\"}";
    let at = bytes.windows(word.len()).position(|it| it == word).expect("the second rule");
    bytes[at] ^= 1;
    std::fs::write(&journal, &bytes).expect("written");

    let refused = mesh.meshctl(&["local", "up"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for word in [&*journal.to_string_lossy(), "is damaged at byte", "nothing was changed", "hint: ", "--recover"] {
        assert!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
    assert_eq!(std::fs::read(&journal).expect("the journal"), bytes);
    let export = mesh.meshctl(&["local", "export"]);
    assert!(export.code == 1 && export.stdout.is_empty() && export.stderr.contains("--recover"), "{export:?}");

    let ran = mesh.meshctl(&["local", "up", "--recover"]).ok();
    assert!(ran.stderr.contains("the damaged journal is kept as") && ran.stderr.contains("lost: "), "{ran:?}");
    let _ = mesh.meshctl(&["local", "down"]).ok();
    let sound = mesh.meshctl(&["local", "up", "--recover"]).ok();
    assert!(sound.stderr.contains("there is nothing to recover"), "{sound:?}");
    let names = mesh.meshctl(&["get", "route-rules", "-o", "name"]).ok().stdout;
    assert!(names.contains("rule-0") && names.contains("rule-2"), "{names}");
    let copy = std::fs::read_dir(&state_dir).expect("the state").flatten().map(|entry| entry.path());
    let copy = copy.into_iter().find(|path| path.to_string_lossy().contains("journal.damaged-")).expect("a copy");
    assert_eq!(std::fs::read(copy).expect("the copy"), bytes);
}
