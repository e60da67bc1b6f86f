//! A mesh on this machine, started and stopped with `meshctl` as a user does.

use std::process::Command;

use serde_json::Value;

use crate::http::Client;
use crate::programs::{Ran, program, repository, run, run_with_input};

/// A running mesh with bookinfo. Dropping it takes it down and removes its state.
pub struct Mesh {
    name: String,
    gateway: String,
    /// Words before each command line, as those of a program that enters a namespace.
    before: Vec<String>,
}

impl Mesh {
    /// Starts a mesh of this name with bookinfo and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With what `meshctl` printed, when it does not start.
    #[must_use]
    pub fn with_bookinfo(name: &str) -> Self {
        Mesh::with(name, &["-f", &Mesh::sample("bookinfo.yaml")], &[])
    }

    /// Starts a mesh of this name with these arguments of `local up`; `before` stands before every command line.
    ///
    /// # Panics
    ///
    /// With what `meshctl` printed, when it does not start.
    #[must_use]
    pub fn with(name: &str, arguments: &[&str], before: &[&str]) -> Self {
        let before = before.iter().map(|word| (*word).to_owned()).collect();
        let mut mesh = Mesh { name: format!("{name}-{}", std::process::id()), gateway: String::new(), before };
        mesh.up(arguments);
        mesh
    }

    /// Starts the mesh again, with its objects and these arguments, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With what `meshctl` printed, when it does not start.
    pub fn up(&mut self, arguments: &[&str]) {
        let _ = self.meshctl(&[&["local", "up", "--wait"], arguments].concat()).ok();
        let status = self.json(&["local", "status", "-o", "json"]);
        let gateway = status["gateway"].as_str().unwrap_or_else(|| panic!("no gateway in {status}"));
        gateway.trim_start_matches("http://").clone_into(&mut self.gateway);
    }

    /// The name it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host:port` of the ingress gateway on this machine.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// A client of the ingress gateway.
    #[must_use]
    pub fn browser(&self) -> Client {
        Client::new(&self.gateway)
    }

    /// Runs `meshctl` on this mesh.
    #[must_use]
    pub fn meshctl(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs `meshctl` on this mesh with a text on standard input.
    #[must_use]
    pub fn meshctl_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        run_with_input(&mut self.command(arguments), input)
    }

    /// `meshctl` on this mesh, not started yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let meshctl = program("meshctl").to_string_lossy().into_owned();
        let mut words = self.before.iter().chain([&meshctl]);
        let mut command = Command::new(words.next().unwrap_or(&meshctl));
        command.args(words).arg("--name").arg(&self.name).args(arguments);
        command
    }

    /// Runs `meshctl` and reads what it printed as JSON.
    ///
    /// # Panics
    ///
    /// When it fails or does not print JSON.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.meshctl(arguments).ok();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{}: {e}\n{}", ran.command, ran.stdout))
    }

    /// Runs a program in a pod's application container.
    #[must_use]
    pub fn exec(&self, pod: &str, command: &[&str]) -> Ran {
        let mut arguments = vec!["local", "exec", pod, "--"];
        arguments.extend(command);
        self.meshctl(&arguments)
    }

    /// The path of a file of the bookinfo sample.
    #[must_use]
    pub fn sample(file: &str) -> String {
        repository().join("samples/bookinfo").join(file).to_string_lossy().into_owned()
    }

    /// Deletes every route rule and destination policy.
    pub fn without_rules(&self) {
        for kind in ["route-rules", "destination-policies"] {
            let _ = self.meshctl(&["delete", kind, "--all", "-n", "default", "--ignore-not-found", "--wait"]).ok();
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.meshctl(&["local", "status"]);
            eprintln!("{}\n{}", status.stdout, status.stderr);
        }
        let down = self.meshctl(&["local", "down", "--purge"]);
        if down.code != 0 {
            eprintln!("the mesh was not taken down: {}", down.stderr);
        }
    }
}
