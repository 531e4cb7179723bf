//! What `status` has found, for people and for programs.

use crate::cli::output::{self, Paint};
use crate::holder::{Holders, Workload};
use crate::policy;
use crate::status::{Guarding, Removable, Serving, Standing, Status};
use serde_json::{Value, json};

/// The columns of the table of one model ConfigMap.
const COLUMNS: [&str; 7] = ["ENTRY", "USAGE", "SINCE", "USED BY", "SERVED BY", "REMOVABLE", "WHY, AND WHAT NEXT"];

/// The most workloads that are named in a row.
const NAMES: usize = 3;

/// What stands where there is nothing to say.
const NOTHING: &str = "-";

/// One after the other, each with a heading and a line between them.
pub(super) fn table(found: &[Status], paint: Paint) -> String {
    found.iter().map(|status| one(status, paint)).collect::<Vec<_>>().join("\n")
}

fn one(status: &Status, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&heading(status)));
    for remark in &status.remarks {
        text += &format!("{} {}\n", paint.bad("!"), remark.replace('\n', " "));
    }
    let rows: Vec<_> = status.entries.iter().map(row).collect();
    match (&rows[..], status.format) {
        ([], None) => text,
        ([], Some(_)) => text + "lists nothing\n",
        (rows, _) => text + &output::table(COLUMNS, rows, paint),
    }
}

fn heading(status: &Status) -> String {
    let format = status.format.map_or_else(|| "unreadable".to_owned(), |format| format!("format {format}"));
    let revision = status.revision.map(|number| format!(", revision {number}")).unwrap_or_default();
    let guarding = match status.guarding {
        Guarding::Missing => "not guarded",
        Guarding::Arming => "guarded for less than a minute",
        Guarding::Armed => "guarded",
    };
    format!("ConfigMap {}: {format}{revision}, namespace {guarding}", status.key)
}

fn row(it: &Standing) -> [String; 7] {
    let removable = match it.removable {
        Removable::Now => "now",
        Removable::AfterProof => "after proof",
        Removable::ByItself => "by itself",
        Removable::No => "no",
    };
    [
        it.entry.to_string(),
        it.usage.name().to_owned(),
        it.since.as_deref().unwrap_or(NOTHING).to_owned(),
        users(&it.holders),
        servers(&it.servers),
        removable.to_owned(),
        it.why.clone(),
    ]
}

/// `3 pods: Deployment prod/api, Job prod/nightly and 2 more`.
fn users(holders: &Holders) -> String {
    let shown = holders.workloads.iter().take(NAMES);
    let shown: Vec<_> = shown.map(|it| format!("{} {}/{}", it.kind, it.namespace, it.name)).collect();
    let names = match holders.workloads_total - shown.len() {
        _ if shown.is_empty() => return NOTHING.to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    };
    match holders.pods_total {
        1 => format!("1 pod: {names}"),
        pods => format!("{pods} pods: {names}"),
    }
}

fn servers(servers: &[Serving]) -> String {
    let describe = |it: &Serving| {
        let how = match (it.is_leaving, it.is_ready) {
            (true, _) => "leaving",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        format!("{} {}/{} ({how})", it.id.kind, it.id.namespace, it.id.name)
    };
    if servers.is_empty() { NOTHING.to_owned() } else { policy::list(servers.iter().map(describe), NAMES) }
}

/// Everything, by names that stay.
pub(super) fn value(found: &[Status]) -> Value {
    let config_map = |it: &Status| {
        json!({
            "namespace": it.key.namespace,
            "name": it.key.name,
            "format": it.format.map(|format| format.to_string()),
            "revision": it.revision,
            "guarding": it.guarding.name(),
            "remarks": it.remarks,
            "entries": it.entries.iter().map(entry).collect::<Vec<_>>(),
        })
    };
    json!({"config_maps": found.iter().map(config_map).collect::<Vec<_>>()})
}

fn entry(it: &Standing) -> Value {
    let holder = |it: &Workload| {
        json!({
            "kind": it.kind, "namespace": it.namespace, "name": it.name, "pods": it.pods, "template": it.template,
            "unreadable": it.unreadable,
        })
    };
    let server = |it: &Serving| {
        let (id, ready, leaving) = (&it.id, it.is_ready, it.is_leaving);
        json!({
            "kind": id.kind.kind(), "namespace": id.namespace, "name": id.name, "ready": ready, "leaving": leaving,
        })
    };
    json!({
        "entry": it.entry.as_str(),
        "usage": it.usage.name(),
        "since": it.since,
        "holders": it.holders.workloads.iter().map(holder).collect::<Vec<_>>(),
        "holders_total": it.holders.workloads_total,
        "pods_total": it.holders.pods_total,
        "servers": it.servers.iter().map(server).collect::<Vec<_>>(),
        "hold": it.hold,
        "retained": it.is_retained,
        "removable": it.removable.name(),
        "why": it.why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{EntryName, Format};
    use crate::holder::ObjectId;
    use crate::object::HolderKind;
    use crate::reference::CatalogKey;
    use crate::status::Usage;

    fn standing(entry: &str) -> Standing {
        Standing {
            entry: EntryName::new(entry).unwrap(),
            usage: Usage::InUse,
            since: None,
            holders: Holders::default(),
            servers: Vec::new(),
            hold: None,
            is_retained: false,
            removable: Removable::AfterProof,
            why: "nobody uses it".to_owned(),
        }
    }

    fn status(entries: Vec<Standing>) -> Status {
        Status {
            key: CatalogKey::new("prod", "extraction-models"),
            format: Some(Format::Yaml),
            revision: Some(2),
            guarding: Guarding::Armed,
            remarks: Vec::new(),
            entries,
        }
    }

    fn holder(name: &str, pods: usize) -> Workload {
        Workload {
            kind: "Deployment".into(),
            namespace: "prod".into(),
            name: name.into(),
            template: true,
            pods,
            pod_names: Vec::new(),
            rollback_target: None,
            unreadable: None,
        }
    }

    fn used() -> Standing {
        let workloads = [("a", 2), ("b", 1), ("c", 0), ("d", 0)].map(|(name, pods)| holder(name, pods)).into();
        let id = ObjectId { kind: HolderKind::StatefulSet, namespace: "prod".into(), name: "server".into() };
        Standing {
            holders: Holders { workloads, workloads_total: 24, pods_total: 30 },
            servers: vec![Serving { id, is_ready: false, is_leaving: false }],
            removable: Removable::No,
            why: "it is used".to_owned(),
            ..standing("extraction@v2")
        }
    }

    #[test]
    fn the_table_is_for_people() {
        let since = Some("2026-11-30T13:31:07Z".into());
        let idle = Standing { usage: Usage::Idle, since, removable: Removable::Now, ..standing("extraction@v1") };
        let lost = Status { format: None, revision: None, guarding: Guarding::Missing, ..status(Vec::new()) };
        let found = [
            status(vec![idle, used()]),
            Status { remarks: vec!["is being deleted".to_owned()], ..status(Vec::new()) },
            Status { remarks: vec!["cannot be read".to_owned()], ..lost },
        ];
        let expected = "\
ConfigMap prod/extraction-models: format yaml, revision 2, namespace guarded
ENTRY           USAGE   SINCE                  USED BY                                                                        SERVED BY                             REMOVABLE   WHY, AND WHAT NEXT
extraction@v1   Idle    2026-11-30T13:31:07Z   -                                                                              -                                     now         nobody uses it
extraction@v2   InUse   -                      30 pods: Deployment prod/a, Deployment prod/b, Deployment prod/c and 21 more   StatefulSet prod/server (not ready)   no          it is used

ConfigMap prod/extraction-models: format yaml, revision 2, namespace guarded
! is being deleted
lists nothing

ConfigMap prod/extraction-models: unreadable, namespace not guarded
! cannot be read
";
        assert_eq!(table(&found, Paint::none()), expected);
    }

    #[test]
    fn the_value_is_for_programs() {
        let value = value(&[status(vec![used()])]);
        let config_map = &value["config_maps"][0];
        assert_eq!((&config_map["name"], &config_map["revision"]), (&json!("extraction-models"), &json!(2)));
        let entry = &config_map["entries"][0];
        assert_eq!((&entry["holders_total"], &entry["pods_total"]), (&json!(24), &json!(30)));
        let server =
            json!({"kind": "StatefulSet", "namespace": "prod", "name": "server", "ready": false, "leaving": false});
        assert_eq!((&entry["removable"], &entry["servers"]), (&json!("No"), &json!([server])));
    }
}
