//! `completion`: what a shell needs to complete `meshctl`, and what completes at the cursor.
//!
//! The script of a shell asks `meshctl` itself at each Tab, so that commands and flags are always those of the binary,
//! and kinds, names, namespaces, pods and contexts those of the live mesh. A mesh that does not answer within
//! `PATIENCE` completes to nothing.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::Args;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;

use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::context;
use crate::discovery::Kinds;
use crate::error::Error;
use crate::flags::Global;
use crate::mesh::items;
use crate::output::Ui;
use crate::resources::{self, name_of, namespace_of};
use crate::settings::Settings;

const EXAMPLES: &str = "\
Examples:
  # bash: now, and in every shell to come
  source <(meshctl completion bash)
  echo 'source <(meshctl completion bash)' >> ~/.bashrc
  # zsh, after compinit
  source <(meshctl completion zsh)
  # fish
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish";

/// How long a mesh may take to answer at the cursor.
const PATIENCE: Duration = Duration::from_millis(300);

/// The variable by which a shell's script asks; see [`answer`].
const VARIABLE: &str = "COMPLETE";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Runs `completion`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(app: &App, args: &CompletionArgs) -> Result<(), Error> {
    app.ui.print(&script(&args.shell)?)
}

/// The script that makes a shell complete `meshctl`.
///
/// # Errors
/// When there is no such shell.
pub fn script(shell: &str) -> Result<String, Error> {
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(shell) else {
        return Err(
            Error::usage(format!("there is no completion for `{shell}`")).hint("there is one for bash, zsh and fish")
        );
    };
    let mut text = Vec::new();
    completer
        .write_registration(VARIABLE, "meshctl", "meshctl", "meshctl", &mut text)
        .map_err(|e| Error::failed("cannot write the script").because(crate::error::io_words(&e)))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Answers a shell's script, if that is who asks, by the whole command line; says whether it was.
///
/// # Errors
/// When the script asks in a way that is not understood.
pub fn answer(tree: fn() -> clap::Command, arguments: &[OsString]) -> Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(|| command(tree())).var(VARIABLE).try_complete(arguments.to_vec(), here.as_deref())
}

/// The command line with what completes its values.
fn command(mut command: clap::Command) -> clap::Command {
    for (path, argument, complete) in [
        (&["get"][..], "kind", kinds as fn(&OsStr) -> Vec<CompletionCandidate>),
        (&["get"], "names", names),
        (&["delete"], "what", kinds_or_names),
        (&["wait"], "what", kinds_or_names),
        (&["edit"], "kind", kinds),
        (&["describe"], "kind", kinds),
        (&["describe"], "object", names),
        (&["edit"], "object", names),
        (&["proxy-config"], "pod", pods),
        (&["proxy-status"], "proxy", pods),
        (&["debug"], "pod", pods),
        (&["local", "exec"], "pod", pods),
        (&["local", "logs"], "pod", pods),
        (&["local", "port-forward"], "pod", pods_or_services),
        (&["local", "scale"], "targets", deployments),
        (&["local", "restart"], "targets", deployments),
        (&[], "namespace", namespaces),
        (&[], "context", contexts),
        (&[], "mesh", meshes),
    ] {
        command = with(command, path, argument, complete);
    }
    command
}

/// Adds a completer to an argument of the command at a path, if it is there.
fn with(
    command: clap::Command,
    path: &[&'static str],
    argument: &'static str,
    complete: fn(&OsStr) -> Vec<CompletionCandidate>,
) -> clap::Command {
    match path {
        // Not `mut_arg`: it would put the argument behind the others, and positional ones are told by their order.
        [] => command.mut_args(|known| match known.get_id() == argument {
            true => known.add(ArgValueCompleter::new(complete)),
            false => known,
        }),
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |command| with(command, rest, argument, complete))
        }
        _ => command,
    }
}

/// The words of the command line that is being completed, without the program.
fn typed() -> Vec<String> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(2);
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The value of a flag among the words.
fn flag(words: &[String], names: &[&str]) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| {
        names.iter().find_map(|name| match word.strip_prefix(name) {
            Some("") => words.get(at + 1).cloned(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        })
    })
}

/// The kind that was typed after the command.
fn typed_kind(words: &[String]) -> Option<String> {
    let after = words
        .iter()
        .skip_while(|word| !matches!(word.as_str(), "get" | "delete" | "wait" | "edit" | "describe"))
        .skip(1);
    let kind = after.into_iter().find(|word| !word.starts_with('-') && !word.is_empty())?;
    // A last word is what is being typed.
    (words.last() != Some(kind)).then(|| kind.clone())
}

/// Asks the mesh that the typed words mean, for as long as a person waits.
fn ask(what: impl AsyncFnOnce(&App, &Cluster) -> Result<Vec<String>, Error>) -> Vec<String> {
    let words = typed();
    let global = Global {
        namespace: flag(&words, &["-n", "--namespace"]),
        context: flag(&words, &["--context"]),
        kubeconfig: flag(&words, &["--kubeconfig"]).map(Into::into),
        mesh: flag(&words, &["--name"]),
    };
    let settings = Settings::of_process();
    let app = App { global, ui: Ui::of_process(&settings), settings };
    let answer = app.block_on(async {
        let asked = async { what(&app, &app.cluster().await?).await };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Ok(Vec::new()))
    });
    answer.unwrap_or_default()
}

/// Names of all objects of a kind in the namespace that is meant.
fn names_of(kind: &str) -> Vec<String> {
    ask(async |app, cluster| {
        let resource = Kinds::default().of_word(cluster, kind).await?;
        let namespace = resource.is_namespaced.then(|| app.namespace(cluster));
        let list = cluster.list(&resource, &Selection { namespace, ..Selection::default() }).await?;
        Ok(items(&list).map(|object| name_of(object).to_owned()).collect())
    })
}

fn starting(current: &OsStr, words: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let mut words: Vec<String> = words.into_iter().filter(|word| word.starts_with(current.as_ref())).collect();
    words.sort();
    words.dedup();
    words.into_iter().map(CompletionCandidate::new).collect()
}

/// Kinds; after `KIND/`, its names.
fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    match current.to_string_lossy().split_once('/') {
        Some((kind, _)) => starting(current, names_of(kind).into_iter().map(|name| format!("{kind}/{name}"))),
        None => starting(current, resources::words()),
    }
}

/// Names of the kind that was typed.
fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    match typed_kind(&typed()) {
        Some(kind) if !kind.contains('/') => starting(current, names_of(&kind)),
        _ => kinds(current),
    }
}

fn kinds_or_names(current: &OsStr) -> Vec<CompletionCandidate> {
    names(current)
}

/// Pods; after `deploy/`, Deployments.
fn pods(current: &OsStr) -> Vec<CompletionCandidate> {
    if let Some((kind, _)) = current.to_string_lossy().split_once('/') {
        return starting(current, names_of(kind).into_iter().map(|name| format!("{kind}/{name}")));
    }
    let found = ask(async |app, cluster| {
        let Some(resource) = resources::by_word("pods") else { return Ok(Vec::new()) };
        let list = cluster.list(&resource, &Selection::default()).await?;
        let here = app.namespace(cluster);
        let word = |pod: &Value| match namespace_of(pod) {
            namespace if namespace == here => name_of(pod).to_owned(),
            namespace => format!("{}.{namespace}", name_of(pod)),
        };
        Ok(items(&list).map(word).collect())
    });
    starting(current, found.into_iter().chain(["deploy/".to_owned()]))
}

/// Pods, Deployments, and after `svc/` Services.
fn pods_or_services(current: &OsStr) -> Vec<CompletionCandidate> {
    let services = starting(current, ["svc/".to_owned()]);
    pods(current).into_iter().chain(services).collect()
}

/// Deployments of the namespace that is meant, as `deploy/NAME` or bare.
fn deployments(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = names_of("deployments");
    match current.to_string_lossy().split_once('/') {
        Some((kind, _)) => starting(current, names.into_iter().map(|name| format!("{kind}/{name}"))),
        None => starting(current, names.iter().cloned().chain(names.iter().map(|name| format!("deploy/{name}")))),
    }
}

fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    starting(current, names_of("namespaces"))
}

fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    starting(current, context::names(flag(&typed(), &["--kubeconfig"]).map(Into::into), &Settings::of_process()))
}

fn meshes(current: &OsStr) -> Vec<CompletionCandidate> {
    starting(current, context::local_meshes(&Settings::of_process()).into_iter().map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_kind_is_the_first_word_after_the_command_that_is_complete() {
        for (text, expected) in [
            ("get rr ", Some("rr")),
            ("get rr rev", Some("rr")),
            ("get r", None),
            ("-n prod delete -A pods x", Some("pods")),
            ("get ", None),
        ] {
            assert_eq!(typed_kind(&words(text)).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn flags_are_found_in_both_spellings() {
        assert_eq!(flag(&words("get -n prod pods"), &["-n", "--namespace"]).as_deref(), Some("prod"));
        assert_eq!(flag(&words("get --namespace=prod"), &["-n", "--namespace"]).as_deref(), Some("prod"));
        assert_eq!(flag(&words("get pods"), &["-n"]), None);
    }
}
