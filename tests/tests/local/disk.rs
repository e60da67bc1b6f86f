//! A disk that is full: nothing is lost, what runs goes on, and it heals by itself.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::namespace::Namespace;
use mesh_tests::programs::{Scratch, eventually, run};

/// A small file system in memory, mounted in a namespace of its own that lives as long as this.
struct SmallDisk {
    namespace: Namespace,
    directory: PathBuf,
}

impl SmallDisk {
    fn new(megabytes: u32) -> Self {
        let directory = std::env::temp_dir().join(format!("{}-small-disk", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        let mount = format!("mount -t tmpfs -o size={megabytes}m none \"$0\"");
        SmallDisk { namespace: Namespace::with(&mount, &directory), directory }
    }

    /// What stands before a command that is to see the disk.
    fn enter(&self) -> Vec<String> {
        self.namespace.enter(&self.directory)
    }

    fn sh(&self, script: &str) -> String {
        let words = self.enter();
        let ran =
            run(Command::new(&words[0]).args(&words[1..]).args(["sh", "-c", script]).current_dir(&self.directory));
        ran.stdout + &ran.stderr
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let said = self.sh(&format!("cat /dev/zero > {0}/filler; df -k {0} | tail -1", self.directory.display()));
        assert!(said.contains("100%"), "{said}");
    }

    fn free(&self) {
        let _ = self.sh(&format!("rm {}/filler", self.directory.display()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

pub(crate) fn on_a_full_disk_writes_are_refused_and_everything_else_goes_on(_: &Mesh) {
    let disk = SmallDisk::new(48);
    let before = disk.enter();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let mut mesh = Mesh::with("disk", &["-f", &Mesh::sample("bookinfo.yaml")], &before);
    let rule = Mesh::sample("route-rule-reviews-v3.yaml");
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-ratings-test-delay.yaml")]).ok();
    disk.fill();

    // More than what is left of the journal's last page.
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata: {{text: {}}}\n",
        "x".repeat(100_000)
    );
    let large = Scratch::file("large.yaml", &text);
    let refused = mesh.meshctl(&["create", "-f", large.path()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for word in
        ["the mesh's disk is full, so nothing was changed", "journal is full", "hint: what runs goes on; free space"]
    {
        assert!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
    let rules = mesh.meshctl(&["get", "route-rules", "-o", "name"]).ok().stdout;
    assert_eq!(rules, "route-rule/ratings-test-delay\n", "reading goes on");
    let maps = mesh.meshctl(&["get", "configmaps", "-o", "name"]).ok().stdout;
    assert!(!maps.contains("large"), "what was refused is not there: {maps}");
    let mut browser = mesh.browser();
    for _ in 0..50 {
        let page = browser.get("/productpage", &[]).expect("the gateway answers");
        assert!(page.status == 200 && !page.body.contains("unavailable"), "{}", page.body);
    }
    // An application that ends is started again, although nobody can write that down.
    let killed = mesh.exec("deploy/details-v1", &["sh", "-c", "kill -KILL 2"]);
    eventually(Duration::from_secs(20), || {
        let page = mesh.browser().get("/productpage", &[]).map_err(|e| e.to_string())?;
        if page.status == 200 && !page.body.contains("unavailable") {
            Ok(())
        } else {
            Err(format!("{killed:?} {}", page.body))
        }
    });

    disk.free();
    let _ = mesh.meshctl(&["create", "-f", large.path()]).ok();
    let _ = mesh.meshctl(&["create", "-f", &rule, "--wait"]).ok();
    eventually(Duration::from_secs(20), || {
        let list = mesh.json(&["get", "pods", "-l", "app=details", "-o", "json"]);
        let status = &list["items"][0]["status"]["containerStatuses"][0];
        let is_told = status["restartCount"].as_u64() >= Some(1) && status["ready"] == true;
        if is_told { Ok(()) } else { Err(format!("what happened meanwhile is not told: {status}")) }
    });
    let _ = mesh.meshctl(&["local", "down"]).ok();
    mesh.up(&[]);
    let rules = mesh.meshctl(&["get", "route-rules", "-o", "name"]).ok().stdout;
    assert_eq!(rules, "route-rule/ratings-test-delay\nroute-rule/reviews-default\n", "nothing is lost");
}
