//! `proxy-config POD secrets`, and `ca inspect POD`: what a proxy is to others, and whom it trusts.

use api::messages::CertificateFacts;
use jiff::Timestamp;
use runtime::svid::report::Report;
use serde_json::json;

use crate::app::App;
use crate::error::Error;
use crate::output::Format;
use crate::table::{Table, duration};

/// Shows the certificates and roots in use.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn show(app: &App, format: &Format, report: &Report) -> Result<(), Error> {
    match format {
        Format::Json => app.ui.json(&json!(report)),
        Format::Yaml => app.ui.yaml(&json!(report)),
        Format::JsonPath(template) => app.ui.print(&template.render(&json!(report))),
        Format::Name => report.id.iter().try_for_each(|id| app.ui.line(id)),
        Format::Table | Format::Wide => table(app, report, *format == Format::Wide),
    }
}

fn table(app: &App, report: &Report, is_wide: bool) -> Result<(), Error> {
    let mut headings = vec!["SECRET", "WHAT", "VALID", "EXPIRES", "SERIAL"];
    if is_wide {
        headings.extend(["SUBJECT", "SHA256"]);
    }
    let mut table = Table::new(&headings);
    let now = Timestamp::now();
    let mut row = |secret: &str, what: &str, facts: &CertificateFacts| {
        let mut cells = vec![secret.to_owned(), what.to_owned(), valid(facts, now), left(facts, now)];
        cells.push(facts.serial.clone());
        if is_wide {
            cells.extend([facts.subject.clone(), facts.fingerprint.clone()]);
        }
        table.row(cells);
    };
    for (at, facts) in report.chain.iter().enumerate() {
        let id = report.id.as_deref().unwrap_or_default();
        row(id, if at == 0 { "certificate" } else { "intermediate" }, facts);
    }
    for bundle in &report.bundles {
        bundle.roots.iter().for_each(|facts| row(&bundle.trust_domain, "root", facts));
    }
    if table.is_empty() {
        app.ui.say("it has no certificate and trusts nobody");
    } else {
        app.ui.print(&table.to_text(true))?;
    }
    match (&report.error, &report.next_renewal) {
        (Some(error), _) => app.ui.warn(&format!("the last attempt to renew has failed: {error}")),
        (None, Some(next)) => {
            app.ui.say(&app.ui.err.dim(&format!("renewed {} times; next at {next}", report.renewals)))
        }
        (None, None) => {}
    }
    Ok(())
}

fn valid(facts: &CertificateFacts, now: Timestamp) -> String {
    let is_after = |time: &str| time.parse::<Timestamp>().is_ok_and(|time| time > now);
    if is_after(&facts.not_before) || !is_after(&facts.not_after) { "no".to_owned() } else { "yes".to_owned() }
}

/// How long a certificate still holds.
#[must_use]
pub(crate) fn left(facts: &CertificateFacts, now: Timestamp) -> String {
    let end = facts.not_after.parse::<Timestamp>().map_or(0, Timestamp::as_second);
    match end.saturating_sub(now.as_second()) {
        left if left > 0 => format!("in {}", duration(left.unsigned_abs())),
        _ => "expired".to_owned(),
    }
}
