//! `modelguard audit`: what should not be there in a cluster, as it is now.

use crate::audit::{self, Finding, Findings};
use crate::cli::output::{self, Format, Paint};
use crate::cli::{Exit, block_on, connect};
use crate::controller;
use crate::guard::RollbackTargets;
use crate::index;
use anyhow::Context as _;
use serde_json::{Value, json};

/// The columns of the table. Catalog and entry are in the text of each finding.
const COLUMNS: [&str; 3] = ["FINDING", "OBJECT", "WHAT IS WRONG"];

/// What `audit` was typed with.
#[derive(clap::Args, Debug)]
#[command(after_help = connect::RIGHTS)]
pub(super) struct Args {
    #[command(flatten)]
    cluster: connect::Args,
    #[command(flatten)]
    webhooks: connect::Webhooks,
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
    let client = args.cluster.connect().await?.client;
    let name = &args.webhooks.configuration;
    let first = look(&client, name).await?;
    if first.total() == 0 {
        return Ok(first);
    }
    Ok(look(&client, name).await?.also_in(&first))
}

async fn look(client: &kube::Client, name: &str) -> anyhow::Result<Findings> {
    let arming = controller::read_configurations(client, name).await.context("list the webhook configurations")?;
    let index = index::everything(client, RollbackTargets::Ignore).await?;
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
    let row = |it: &Finding| [it.kind.name().to_owned(), it.object.to_string(), it.message.to_string()];
    let rows: Vec<_> = findings.listed().map(row).collect();
    let mut text = output::table(COLUMNS, &rows, paint);
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
        let altered =
            Configuration { uid: "u".to_owned(), generation: 2, defect: Some("it lacks x".to_owned()), gap: None };
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
