use super::*;
use crate::catalog::{EntryName, Format};
use crate::manifest::Notation;
use crate::sharing::Sharing;

const MODELS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: models\n  namespace: prod\n  labels: {modelguard.dev/catalog: keys}\ndata: {v1: a, v2: b}\n";

fn of(files: &[(&str, &str)]) -> Result<Snapshot, String> {
    let file = |(path, text): &(&str, &str)| File {
        path: PathBuf::from(path),
        notation: Notation::of_extension(path.rsplit_once('.').unwrap().1).unwrap(),
        bytes: text.as_bytes().to_vec(),
    };
    Snapshot::of(&files.iter().map(file).collect::<Vec<_>>(), RollbackTargets::Warn)
        .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

fn pod(name: &str, uses: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: prod, annotations: {{modelguard.dev/uses: '{uses}'}}}}\nspec: {{containers: []}}\n"
    )
}

fn held(snapshot: &Snapshot) -> Vec<String> {
    let names = ["v1", "v2"].map(|name| EntryName::new(name).unwrap());
    let held =
        snapshot.index.held(&CatalogKey::new("prod", "models"), &Sharing::new("prod", Some("*")), Format::Keys, &names);
    held.iter().map(ToString::to_string).collect()
}

#[test]
fn every_namespace_counts_and_what_names_none_is_in_default() {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: api}\nspec: {template: {metadata: {annotations: {modelguard.dev/uses: 'prod/models:v2'}}, spec: {containers: []}}}\n";
    let snapshot = of(&[("models.yaml", MODELS), ("api.yml", other)]).unwrap();
    assert_eq!(held(&snapshot), ["v2"]);
    assert_eq!(snapshot.to_string(), "1 model ConfigMaps, 1 workloads");
    let holder = snapshot.workloads.keys().next().unwrap();
    assert_eq!((&*holder.namespace, &*holder.name), ("default", "api"));
}

#[test]
fn pods_dangle_whose_entry_or_catalog_is_not_there() {
    let pods = [("a", "models:v1"), ("b", "models:v3"), ("c", "none:v1")].map(|(name, uses)| pod(name, uses)).join("");
    let snapshot = of(&[("models.yaml", MODELS), ("pods.yaml", &pods)]).unwrap();
    let dangling: Vec<_> = snapshot.dangling().into_iter().map(|id| id.name).collect();
    assert_eq!(dangling, ["b".into(), "c".into()]);
}

#[test]
fn a_namespace_that_is_being_deleted_is_known() {
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b, deletionTimestamp: '2026-11-20T09:12:44Z'}\n";
    let snapshot = of(&[("namespaces.yaml", namespaces)]).unwrap();
    assert_eq!(snapshot.terminating, ["b".into()].into());
}

#[test]
fn other_kinds_are_no_concern() {
    let others = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: example.com/v1\nkind: ConfigMap\n---\n# nothing\n";
    assert!(of(&[("others.yaml", others)]).unwrap().catalogs.is_empty());
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    for (text, expected) in [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: 1}\n",
            "manifest a.yaml: line 1, column 1: expected ConfigMap default/a as Kubernetes has it (invalid type: integer `1`, expected a string)",
        ),
        (
            "# api\n\napiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n",
            "manifest a.yaml: line 3, column 1: expected metadata.name of the Pod (found none)",
        ),
        (
            "kind: Pod\n",
            "manifest a.yaml: line 1, column 1: expected a Kubernetes object with apiVersion and kind (found none)",
        ),
    ] {
        assert_eq!(of(&[("a.yaml", text)]).unwrap_err(), expected);
    }
    let twice = of(&[("a.yaml", MODELS), ("b.yaml", MODELS)]).unwrap_err();
    assert_eq!(
        twice,
        "manifest b.yaml: line 1, column 1: expected each object once (found ConfigMap prod/models again, first in a.yaml, line 1)"
    );
    let file = File { path: "a.json".into(), notation: Notation::Json, bytes: b"{}\n\xff".to_vec() };
    assert_eq!(
        format!("{:#}", anyhow::Error::from(Snapshot::of(&[file], RollbackTargets::Warn).unwrap_err())),
        "manifest a.json: line 2, column 1: expected UTF-8 (found something else in this line)"
    );
}
