//! `modelguard audit`: what should not be there in a cluster, as it is now.

use crate::audit::{self, Finding, Findings};
use crate::cli::output::{self, Format, Paint};
use crate::cli::{Exit, block_on, connect};
use crate::controller;
use crate::index;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The columns of the table. Catalog and entry are in the text of each finding.
const COLUMNS: [&str; 3] = ["FINDING", "OBJECT", "WHAT IS WRONG"];

/// What stands between two of them, as in kubectl's tables.
const GAP: &str = "   ";

/// What `audit` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Kubeconfig file [default: the usual rules, then in cluster]; whoever it names must be allowed to list model
    /// ConfigMaps, workloads, pods, namespaces and webhook configurations in the whole cluster
    #[arg(long, value_name = "FILE", env = "MODELGUARD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Name of the Mutating- and the ValidatingWebhookConfiguration that call the webhook
    #[arg(long, value_name = "NAME", env = "MODELGUARD_WEBHOOK_CONFIGURATION", default_value = "modelguard")]
    webhook_configuration: String,
    #[command(flatten)]
    output: output::Args,
}

/// Looks, and prints what was found.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let findings = block_on(audit(args))??;
    let text = match args.output.output {
        Format::Json => format!("{}\n", value(&findings)),
        Format::Yaml => output::yaml(&value(&findings))?,
        Format::Table => table(&findings, Paint::stdout()),
    };
    output::print(&text)?;
    Ok(if findings.total() == 0 { Exit::Fine } else { Exit::Findings })
}

/// What two looks agree on; where the first finds nothing, there is no need for another.
async fn audit(args: &Args) -> anyhow::Result<Findings> {
    let client = connect::cluster(args.kubeconfig.as_deref(), None).await?.client;
    let name = &args.webhook_configuration;
    let first = look(&client, name).await?;
    if first.total() == 0 {
        return Ok(first);
    }
    Ok(look(&client, name).await?.also_in(&first))
}

async fn look(client: &kube::Client, name: &str) -> anyhow::Result<Findings> {
    let arming = controller::read_configurations(client, name).await.context("list the webhook configurations")?;
    let index = index::everything(client).await?;
    Ok(audit::look(&index, &arming, name))
}

fn value(findings: &Findings) -> Value {
    let finding = |it: &Finding| {
        let namespace = Some(&it.object.namespace).filter(|namespace| !namespace.is_empty());
        json!({
            "kind": it.kind.name(),
            "object": {"kind": it.object.kind, "namespace": namespace, "name": it.object.name},
            "catalog": it.catalog.as_ref().map(ToString::to_string),
            "entry": it.entry.as_ref().map(ToString::to_string),
            "message": it.message,
        })
    };
    json!({"total": findings.total(), "findings": findings.listed().map(finding).collect::<Vec<_>>()})
}

fn table(findings: &Findings, paint: Paint) -> String {
    if findings.total() == 0 {
        return "no findings\n".to_owned();
    }
    let row = |it: &Finding| [it.kind.name().to_owned(), it.object.to_string(), it.message.replace('\n', " ")];
    let rows: Vec<_> = findings.listed().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let [kinds, objects] = [0, 1].map(|column| width(column).max(COLUMNS[column].len()));
    let line = |[kind, object, text]: [&str; 3]| format!("{kind:kinds$}{GAP}{object:objects$}{GAP}{text}");
    let lines = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    let mut text: String = [paint.bold(&line(COLUMNS))].into_iter().chain(lines).map(|line| line + "\n").collect();
    if let more @ 1.. = findings.total().saturating_sub(findings.listed().len()) {
        text += &format!("and {more} more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arming::{Arming, Configuration, Webhooks};
    use crate::index::Index;
    use std::time::Duration;

    fn found() -> Findings {
        let mut arming = Arming::default();
        let altered = Configuration { uid: "u".to_owned(), generation: 2, defect: Some("it lacks x".to_owned()) };
        arming.configuration(Webhooks::Mutating, Some(altered), Duration::ZERO);
        arming.configuration(Webhooks::Validating, None, Duration::ZERO);
        audit::look(&Index::default(), &arming, "modelguard")
    }

    #[test]
    fn the_table_is_for_people() {
        let paint = Paint::none();
        assert_eq!(table(&Findings::default(), paint), "no findings\n");
        let expected = "\
FINDING           OBJECT                                      WHAT IS WRONG
WebhooksAltered   MutatingWebhookConfiguration modelguard     does not protect what it should: it lacks x
WebhooksMissing   ValidatingWebhookConfiguration modelguard   does not exist, so that requests pass unseen
";
        assert_eq!(table(&found(), paint), expected);
    }

    #[test]
    fn the_value_is_for_programs() {
        let altered = json!({
            "kind": "WebhooksAltered", "catalog": null, "entry": null,
            "object": {"kind": "MutatingWebhookConfiguration", "namespace": null, "name": "modelguard"},
            "message": "does not protect what it should: it lacks x",
        });
        let value = value(&found());
        assert_eq!((&value["total"], &value["findings"][0]), (&json!(2), &altered));
    }
}
