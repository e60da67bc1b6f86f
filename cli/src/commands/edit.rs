//! `edit`: an object in an editor, and back, as often as it takes.

mod file;
mod merge;

use std::time::Duration;

use api::problem::Problem;
use clap::Args;
use serde_json::{Value, json};

use self::file::Draft;
use super::target::Target;
use super::write::{self, Done, WriteOptions, done_line, written};
use crate::app::App;
use crate::cluster::Cluster;
use crate::columns::without_noise;
use crate::discovery::Kinds;
use crate::error::{Error, problem_text};
use crate::flags::{Trial, duration};
use crate::mesh;
use crate::objects::{self, Source};
use crate::output::Format;
use crate::paint::Paint;
use crate::resources::{name_of, namespace_of, version_of};
use crate::wait::{self, Change};

const EXAMPLES: &str = "\
Examples:
  # In $KUBE_EDITOR, else $EDITOR, else vi
  meshctl edit route-rule reviews-default
  meshctl edit rr/reviews-default
  # And wait until every proxy has applied the change
  meshctl edit rr/reviews-default --wait
  # Let the server check the change, and change nothing
  meshctl edit rr/reviews-default --dry-run=server
  # With another editor
  KUBE_EDITOR='code --wait' meshctl edit dp/reviews";

/// Arguments of `edit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EditArgs {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND", required = true)]
    kind: String,
    /// Name
    #[arg(value_name = "NAME")]
    object: Option<String>,
    #[command(flatten)]
    options: WriteOptions,
    /// How long `--wait` waits
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Runs `edit`.
///
/// # Errors
/// When the object is not there, the editor cannot be run, or no valid change was saved; the draft is kept then.
pub fn run(app: &App, args: &EditArgs) -> Result<(), Error> {
    let editor = app.settings.editor()?;
    app.block_on(async {
        if args.options.dry_run == Some(Trial::Traffic) {
            return Err(Error::usage("--dry-run=traffic is not for `edit`")
                .hint("write the object to a file, and give it to `meshctl apply -f FILE --dry-run=traffic`"));
        }
        let cluster = match args.options.dry_run {
            Some(Trial::Client) => app.cluster().await?,
            _ => app.cluster_to_change().await?,
        };
        let target = target(app, &cluster, args).await?;
        let Some(object) = cluster.get(&target.resource, &target.namespace, &target.name).await? else {
            return Err(target.not_there(&cluster).await?);
        };
        let mut session = Session { target: &target, editor: &editor, base: without_noise(object), said: Vec::new() };
        let draft = Draft::new(&target.name)?;
        let result = session.run(app, &cluster, &draft, &args.options).await;
        match result {
            Ok(Some((answer, done))) => {
                draft.discard();
                finish(app, &cluster, args, (&target, &answer, done)).await
            }
            Ok(None) => {
                draft.discard();
                Ok(())
            }
            Err(error) => Err(error
                .because(format!("your text is kept in {}", draft.path().display()))
                .hint(format!("mend it and run `meshctl apply -f {}`, or edit again", draft.path().display()))),
        }
    })
}

async fn target(app: &App, cluster: &Cluster, args: &EditArgs) -> Result<Target, Error> {
    let (kind, name) = match (args.kind.split_once('/'), &args.object) {
        (Some((kind, name)), None) => (kind, name),
        (None, Some(name)) => (args.kind.as_str(), name.as_str()),
        (Some(_), Some(extra)) => {
            return Err(
                Error::usage(format!("`{extra}` is one argument too many")).hint("one object can be edited at a time")
            );
        }
        (None, None) => {
            return Err(Error::usage("the name of what to edit is missing")
                .hint(format!("as in `meshctl edit {} NAME`", args.kind)));
        }
    };
    let resource = Kinds::default().of_word(cluster, kind).await?;
    let namespace = if resource.is_namespaced { app.namespace(cluster).to_owned() } else { String::new() };
    Ok(Target { resource, namespace, name: name.to_owned() })
}

/// Shows what was done, and waits if asked to.
async fn finish(
    app: &App,
    cluster: &Cluster,
    args: &EditArgs,
    (target, answer, done): (&Target, &Value, Done),
) -> Result<(), Error> {
    let options = &args.options;
    match &options.output {
        Format::Table | Format::Wide if options.dry_run == Some(Trial::Client) => {
            app.ui.line(&format!("{} is valid (client dry run, nothing was sent)", target.word()))?;
        }
        Format::Table | Format::Wide => {
            app.ui.line(&done_line(&target.resource, answer, done, options.dry_run.is_some()))?;
        }
        format => write::show(app, std::slice::from_ref(answer), format)?,
    }
    let limit = args.timeout.or(options.wait.wait).filter(|_| options.wait.wait.is_some() && options.dry_run.is_none());
    let Some(limit) = limit.filter(|_| target.resource.is_mesh() && done != Done::Unchanged) else { return Ok(()) };
    let changes = [Change::made(&target.resource, answer)];
    wait::until_applied(app, mesh::pilots(cluster), &changes, limit).await.map(drop)
}

/// One object on its way through the editor.
struct Session<'a> {
    target: &'a Target,
    editor: &'a str,
    /// The object that the draft began from.
    base: Value,
    /// What was wrong with the last draft, in lines.
    said: Vec<String>,
}

/// Why a draft goes back to the editor.
enum Again {
    /// It is wrong.
    Wrong(Vec<String>),
    /// The object was changed by somebody else.
    Conflict,
}

impl Session<'_> {
    /// Edits until a draft is accepted: the answer of the server, or nothing if nothing was changed.
    async fn run(
        &mut self,
        app: &App,
        cluster: &Cluster,
        draft: &Draft,
        options: &WriteOptions,
    ) -> Result<Option<(Value, Done)>, Error> {
        let mut text = api::yaml::render(&self.base);
        // Whether the text holds a change already, which saving it as it is confirms.
        let mut is_merged = false;
        loop {
            let shown = self.with_comments(&text);
            draft.write(&shown)?;
            draft.edit(self.editor)?;
            let edited = without_comments(&draft.read()?);
            if edited.trim().is_empty() {
                app.ui.say("edit cancelled: the saved text is empty, nothing was changed");
                return Ok(None);
            }
            if edited == text && !is_merged {
                if self.said.is_empty() {
                    app.ui.say("edit cancelled: nothing was changed");
                    return Ok(None);
                }
                return Err(Error::failed("edit cancelled: no valid change was saved").because(self.said.join("\n")));
            }
            (text, is_merged) = (edited, false);
            let outcome = match self.read(&text) {
                Ok(object) => self.send(cluster, &object, options).await?,
                Err(wrong) => Err(Again::Wrong(wrong)),
            };
            match outcome {
                Ok((_, Done::Unchanged)) => {
                    app.ui.say("edit cancelled: nothing was changed");
                    return Ok(None);
                }
                Ok(answer) => return Ok(Some(answer)),
                Err(Again::Wrong(said)) => self.said = said,
                Err(Again::Conflict) => (text, is_merged) = (self.merged(cluster, &text).await?, true),
            }
            app.ui.say(
                &app.ui.err.warning("the change is not possible like this; the editor opens again with the reasons"),
            );
        }
    }

    /// The object of a draft; else what is wrong with it.
    fn read(&self, text: &str) -> Result<Value, Vec<String>> {
        let source = Source { name: "the text".to_owned(), text: text.to_owned() };
        let mut parsed = objects::parse(&[source]);
        for problem in &mut parsed.problems {
            // The comments above the text move its lines; the path says where.
            if !problem.path.is_empty() {
                problem.location = None;
            }
        }
        let errors: Vec<&Problem> = parsed.problems.iter().filter(|problem| problem.is_error()).collect();
        if !errors.is_empty() {
            return Err(errors.iter().flat_map(|problem| lines(&problem_text(problem, Paint::PLAIN))).collect());
        }
        let [object] = parsed.objects.as_slice() else {
            return Err(vec![format!("the text holds {} objects, not one", parsed.objects.len())]);
        };
        let object = &object.value;
        let identity = |object: &Value| {
            let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            [field("apiVersion"), field("kind"), namespace_of(object).to_owned(), name_of(object).to_owned()]
        };
        let fields = ["apiVersion", "kind", "metadata.namespace", "metadata.name"];
        let (before, after) = (identity(&self.base), identity(object));
        let changed = fields.iter().zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after);
        let wrong: Vec<String> = changed
            .map(|(field, (before, after))| {
                format!("error: {field} cannot be changed: it is `{before}`, not `{after}`")
            })
            .collect();
        if wrong.is_empty() { Ok(object.clone()) } else { Err(wrong) }
    }

    async fn send(
        &self,
        cluster: &Cluster,
        object: &Value,
        options: &WriteOptions,
    ) -> Result<Result<(Value, Done), Again>, Error> {
        if written(object) == written(&self.base) {
            return Ok(Ok((self.base.clone(), Done::Unchanged)));
        }
        if options.dry_run == Some(Trial::Client) {
            return Ok(Ok((object.clone(), Done::Updated)));
        }
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(version_of(&self.base)));
        }
        let Target { resource, namespace, .. } = self.target;
        match cluster.replace(resource, namespace, &object, options.dry_run.is_some()).await {
            Ok(answer) => Ok(Ok((answer, Done::Updated))),
            Err(error) if error.is_conflict() => Ok(Err(Again::Conflict)),
            Err(error) if error.exit() == crate::error::Exit::Failed => {
                Ok(Err(Again::Wrong(lines(&error.to_text(Paint::PLAIN)))))
            }
            Err(error) => Err(error),
        }
    }

    /// The draft's change on top of what the object is by now.
    async fn merged(&mut self, cluster: &Cluster, text: &str) -> Result<String, Error> {
        let Target { resource, namespace, name } = self.target;
        let Some(now) = cluster.get(resource, namespace, name).await? else {
            return Err(Error::failed(format!("{} was deleted meanwhile", self.target.label())));
        };
        let now = without_noise(now);
        let mut merged = now.clone();
        if let Ok(draft) = self.read(text) {
            merge::apply(&mut merged, &merge::difference(&self.base, &draft));
        }
        if let Some(metadata) = merged.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(version_of(&now)));
        }
        self.base = now;
        self.said = vec![
            "the object was changed by somebody else meanwhile: this is their version with your change in it;"
                .to_owned(),
            "look it through and save it; an empty text cancels the edit".to_owned(),
        ];
        Ok(api::yaml::render(&merged))
    }

    fn with_comments(&self, text: &str) -> String {
        let mut shown = format!(
            "# {}\n# Lines that begin with # here at the top are left out. An empty text cancels the edit.\n\
             # If the change is not possible, the editor opens again with the reasons.\n#\n",
            self.target.label()
        );
        for line in &self.said {
            shown.push_str(&format!("# {line}\n"));
        }
        if !self.said.is_empty() {
            shown.push_str("#\n");
        }
        shown + text
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The text without the comments at its top, which are ours.
fn without_comments(text: &str) -> String {
    text.split_inclusive('\n').skip_while(|line| line.starts_with('#')).collect()
}
