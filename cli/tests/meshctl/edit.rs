//! `edit`, with editors that are programs.

use std::path::PathBuf;

use crate::api::Server;
use crate::run::{Home, Ran};

/// Runs `edit` with this editor, a line of shell.
fn edit(home: &Home, arguments: &[&str], editor: &str) -> Ran {
    let mut command = home.command(&[&["edit"], arguments].concat());
    let output = command.env("KUBE_EDITOR", editor).env("TMPDIR", home.path()).output().expect("meshctl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code().unwrap_or(-1) }
}

fn with_rules() -> Server {
    let server = Server::with_kinds();
    assert_eq!(server.home.run(&["create", "-f", "rules.yaml"]).code, 0);
    server
}

fn precedence(home: &Home) -> String {
    home.run(&["get", "rr", "reviews-jason", "-o", "jsonpath={.spec.precedence}"]).stdout
}

/// Drafts that are left behind.
fn drafts(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.path()).expect("readable").flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains("meshctl-edit-")).collect()
}

#[test]
fn what_was_changed_in_the_editor_is_written_and_nothing_else() {
    let server = with_rules();
    let home = &server.home;
    let ran = edit(home, &["rr/reviews-jason"], "sed -i 's/precedence: 2/precedence: 5/'");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("Updated config route-rule/default/reviews-jason to revision "), "{ran:?}");
    assert_eq!(precedence(home), "5");
    let version = || home.run(&["get", "rr", "reviews-jason", "-o", "jsonpath={.metadata.resourceVersion}"]).stdout;
    let before = version();
    for (editor, said) in [("true", "nothing was changed"), ("truncate -s 0", "the saved text is empty")] {
        let ran = edit(home, &["route-rule", "reviews-jason"], editor);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    let dry = edit(home, &["rr/reviews-jason", "--dry-run=server"], "sed -i 's/precedence: 5/precedence: 6/'");
    assert!(dry.code == 0 && dry.stdout.contains("(server dry run)"), "{dry:?}");
    let dry = edit(home, &["rr/reviews-jason", "--dry-run"], "sed -i 's/precedence: 5/precedence: 6/'");
    assert!(dry.code == 0 && dry.stdout.contains("client dry run"), "{dry:?}");
    assert_eq!(version(), before, "nothing was written");
    assert_eq!(drafts(home), Vec::<PathBuf>::new());
}

#[test]
fn a_wrong_draft_comes_back_with_the_reasons_until_it_is_right() {
    let server = with_rules();
    let home = &server.home;
    let script = "#!/bin/sh\nif grep -q '^# error: ' \"$1\"; then cp \"$1\" seen; sed -i 's/precedense: .*/precedence: 7/' \"$1\"\n\
                  else sed -i 's/precedence: 2/precedense: 7/' \"$1\"; fi\n";
    std::fs::write(home.path().join("editor"), script).expect("written");
    let ran = edit(home, &["rr/reviews-jason"], "sh ./editor");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(precedence(home), "7");
    let seen = std::fs::read_to_string(home.path().join("seen")).expect("it came back");
    assert!(seen.contains("# hint: did you mean `precedence`?"), "{seen}");
    assert!(!seen.contains("the text:"), "lines of the text are not those of the editor:\n{seen}");
    assert!(ran.stderr.contains("the editor opens again with the reasons"), "{ran:?}");
}

#[test]
fn a_draft_that_stays_wrong_is_kept() {
    let server = with_rules();
    let home = &server.home;
    for (editor, said) in [
        ("sed -i 's/precedence: 2/precedence: high/'", "no valid change was saved"),
        ("sed -i 's/name: reviews-jason/name: other/'", "metadata.name cannot be changed"),
        ("sh -c 'exit 3'", "ended with 3"),
    ] {
        let ran = edit(home, &["rr/reviews-jason"], editor);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains("your text is kept in "), "{ran:?}");
        let kept = drafts(home);
        assert_eq!(kept.len(), 1, "{kept:?}");
        std::fs::remove_file(&kept[0]).expect("it is there");
    }
    assert_eq!(precedence(home), "2");
}

#[test]
fn what_somebody_else_changed_meanwhile_is_not_lost() {
    let server = with_rules();
    let home = &server.home;
    let kubeconfig = home.path().join("state/kubeconfig");
    let theirs = std::fs::read_to_string(home.path().join("rules.yaml")).expect("read").replace("jason)(;", "judy)(;");
    std::fs::write(home.path().join("theirs.yaml"), theirs).expect("written");
    let script = format!(
        "#!/bin/sh\nif [ ! -e once ]; then touch once; sed -i 's/precedence: 2/precedence: 8/' \"$1\"\n\
         {} --kubeconfig {} apply -f theirs.yaml >/dev/null 2>&1; else cp \"$1\" seen; fi\n",
        env!("CARGO_BIN_EXE_meshctl"),
        kubeconfig.display()
    );
    std::fs::write(home.path().join("editor"), script).expect("written");
    let ran = edit(home, &["rr/reviews-jason"], "sh ./editor");
    assert_eq!(ran.code, 0, "{ran:?}");
    let seen = std::fs::read_to_string(home.path().join("seen")).expect("the editor was opened again");
    assert!(seen.contains("# the object was changed by somebody else meanwhile"), "{seen}");
    let now = home.run(&["get", "rr", "reviews-jason", "-o", "yaml"]).stdout;
    assert!(now.contains("precedence: 8") && now.contains("judy"), "both changes are there:\n{now}");
}

#[test]
fn slips_are_told_before_any_editor_runs() {
    let server = with_rules();
    let home = &server.home;
    let missing = edit(home, &["rr/reviews-jasson"], "true");
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("hint: did you mean `reviews-jason`?"), "{missing:?}");
    let nameless = edit(home, &["rr"], "true");
    assert_eq!(nameless.code, 2, "{nameless:?}");
    let blind = home.run(&["edit", "rr/reviews-jason"]);
    assert_eq!(blind.code, 2, "{blind:?}");
    assert!(blind.stderr.contains("neither KUBE_EDITOR nor EDITOR is set"), "{blind:?}");
}
