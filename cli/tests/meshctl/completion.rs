//! Completion at the cursor, and the generated files.

use std::path::PathBuf;

use crate::api::Server;
use crate::run::{Home, bless};

fn generated(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../completions").join(name);
    if bless() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} is stale; run `make bless`", path.display());
}

#[test]
fn golden_completion_scripts_are_fresh() {
    for (shell, name) in [("bash", "meshctl.bash"), ("zsh", "_meshctl"), ("fish", "meshctl.fish")] {
        let ran = Home::new().run(&["completion", shell]);
        assert_eq!(ran.code, 0, "{ran:?}");
        generated(name, &ran.stdout);
    }
    assert_eq!(Home::new().run(&["completion", "csh"]).code, 2);
}

#[test]
fn golden_man_pages_are_fresh() {
    let mut command = meshctl::args::command();
    command.build();
    pages(&command, "meshctl");
}

fn pages(command: &clap::Command, name: &str) {
    let mut page = Vec::new();
    let titled = command.clone().name(name.to_owned());
    clap_mangen::Man::new(titled).render(&mut page).expect("rendered");
    generated(&format!("man/{name}.1"), &String::from_utf8(page).expect("text"));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, &format!("{name}-{}", inner.get_name()));
    }
}

/// What completes the last of these words.
fn complete(home: &Home, words: &[&str]) -> Vec<String> {
    let mut command = home.command(&[]);
    let all: Vec<&str> = [&["--", "meshctl"], words].concat();
    command.args(all).env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").env("_CLAP_IFS", "\n");
    let output = command.output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn commands_kinds_and_flags_complete_without_a_mesh() {
    let home = Home::new();
    assert!(complete(&home, &["proxy-"]).contains(&"proxy-status".to_owned()));
    assert_eq!(complete(&home, &["get", "route-rules"]), ["route-rules"]);
    assert!(complete(&home, &["get", "rr", "--ignore"]).contains(&"--ignore-not-found".to_owned()));
    assert!(complete(&home, &["get", "rr", "x"]).is_empty());
}

#[test]
fn names_namespaces_and_contexts_complete_from_the_live_mesh() {
    let server = Server::with_kinds();
    assert_eq!(server.home.run(&["create", "-f", "rules.yaml"]).code, 0);
    let kubeconfig = server.home.path().join("state/kubeconfig").display().to_string();
    let home = Home::new();
    let ask = |words: &[&str]| complete(&home, &[&["--kubeconfig", &kubeconfig], words].concat());
    assert_eq!(ask(&["get", "rr", "reviews-j"]), ["reviews-jason"]);
    assert_eq!(ask(&["delete", "route-rule", "reviews-"]), ["reviews-default", "reviews-jason"]);
    assert_eq!(ask(&["get", "rr/reviews-d"]), ["rr/reviews-default"]);
    assert_eq!(ask(&["get", "rr", "-n", "def"]), ["default"]);
    assert_eq!(ask(&["--context", "mesh"]), ["mesh-test"]);
}

#[test]
fn a_mesh_that_does_not_answer_is_not_waited_for_at_the_cursor() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let home = Home::new();
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"{url}\"}}}}]\n\
         users: []\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n"
    );
    std::fs::write(home.path().join("silent"), text).expect("written");
    let started = tokio::time::Instant::now();
    assert!(complete(&home, &["--kubeconfig", "silent", "get", "pods", "x"]).is_empty());
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
}

/// Whether a program is installed.
fn has(program: &str) -> bool {
    let is_there = std::process::Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        println!("left out: {program} is not installed");
    }
    is_there
}

/// What a shell with its script offers, by the shell's own machinery.
fn offered(shell: &str, script: &str, home: &Home) -> Vec<String> {
    let meshctl = PathBuf::from(env!("CARGO_BIN_EXE_meshctl"));
    let folder = meshctl.parent().expect("a directory").display().to_string();
    let completions = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../completions");
    let mut command = std::process::Command::new(shell);
    command.arg("-c").arg(script).env_clear().env("HOME", home.path()).current_dir(home.path());
    command.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin")).env("COMPLETIONS", completions);
    let output = command.output().expect("the shell runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{shell}: {stderr}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_with_its_script() {
    assert!(has("bash"), "bash is everywhere");
    let home = Home::new();
    // As readline does it: the function that the script has registered, with the words and the place of the cursor.
    let ask = |words: &str| {
        let script = format!(
            "source \"$COMPLETIONS/meshctl.bash\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
             function=$(complete -p meshctl | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); compopt() {{ :; }}; \
             $function meshctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        offered("bash", &script, &home)
    };
    assert_eq!(ask("meshctl proxy-st"), ["proxy-status"]);
    assert_eq!(ask("meshctl ca is"), ["issue"]);
    assert!(ask("meshctl get rr --ignore").contains(&"--ignore-not-found".to_owned()));
}

#[test]
fn fish_completes_with_its_script() {
    if !has("fish") {
        return;
    }
    let home = Home::new();
    let ask = |line: &str| {
        let script = format!("source $COMPLETIONS/meshctl.fish; complete -C '{line}'");
        let lines = offered("fish", &script, &home);
        lines.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ask("meshctl proxy-st"), ["proxy-status"]);
    assert_eq!(ask("meshctl ca is"), ["issue"]);
}

#[test]
fn zsh_reads_its_script() {
    if !has("zsh") {
        return;
    }
    // The function is registered; what it asks meshctl is shown by the words that it would describe.
    let script = "autoload -U compinit; compinit -D; source $COMPLETIONS/_meshctl; \
        _describe() { print -l -- ${(P)${@[-1]}}; }; words=(meshctl proxy-st); CURRENT=2; ${_comps[meshctl]}";
    let lines = offered("zsh", script, &Home::new());
    assert!(lines.iter().any(|line| line.starts_with("proxy-status")), "{lines:?}");
}
