//! What keeps a webhook configuration from protecting what it should.
//!
//! An entry must be there, fail closed, and be sent everything that could change what is held, or take away who serves it
//! or the namespace that it is in. What the chart itself leaves out is let pass: namespaces that are excluded, and requests
//! by the conditions that it names.

use crate::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// What one entry must be like.
#[derive(Debug)]
struct Expected {
    name: &'static str,
    rules: &'static [Rule],
    /// The labels that objects may be selected by: those that carry them are all that matters.
    objects: &'static [&'static str],
    /// The same of namespaces.
    namespaces: &'static [&'static str],
    /// The conditions that requests may be left out by.
    conditions: &'static [&'static str],
}

/// What an entry must be sent: operations, API group and version, and resources.
type Rule = (&'static [&'static str], (&'static str, &'static str), &'static [&'static str]);

/// What an entry is sent, of either kind.
#[derive(Clone, Copy, Debug)]
struct Sent<'a> {
    rules: &'a [RuleWithOperations],
    objects: Option<&'a LabelSelector>,
    namespaces: Option<&'a LabelSelector>,
    conditions: &'a [MatchCondition],
}

const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const CORE: (&str, &str) = ("", "v1");

/// It may fail open: `catalog.modelguard.dev` checks what it should have set, and refuses every change without it.
const REVISION: Expected = Expected {
    name: "revision.modelguard.dev",
    rules: &[(&["CREATE", "UPDATE"], CORE, &["configmaps"])],
    objects: &[names::CATALOG_LABEL],
    namespaces: &[],
    conditions: &[],
};

/// What must fail closed: what they would let pass unseen could reference an entry that is Idle.
const FAIL_CLOSED: [Expected; 2] = [
    Expected {
        name: "catalog.modelguard.dev",
        rules: &[(&["CREATE", "UPDATE", "DELETE"], CORE, &["configmaps"])],
        objects: &[names::CATALOG_LABEL],
        namespaces: &[],
        conditions: &["not-our-own-annotations"],
    },
    Expected {
        name: "workload.modelguard.dev",
        rules: &[
            (&["CREATE", "UPDATE"], APPS, &["deployments", "statefulsets", "daemonsets", "replicasets"]),
            (&["CREATE", "UPDATE"], BATCH, &["jobs", "cronjobs"]),
            (&["CREATE", "UPDATE"], CORE, &["pods", "replicationcontrollers"]),
            (&["CREATE", "UPDATE"], ("argoproj.io", "v1alpha1"), &["rollouts"]),
            (&["UPDATE"], CORE, &["pods/ephemeralcontainers", "pods/status"]),
            (&["UPDATE"], APPS, &["replicasets/scale"]),
        ],
        objects: &[],
        namespaces: &[names::GUARD_LABEL],
        conditions: WORKLOAD_CONDITIONS,
    },
];

const WORKLOAD_CONDITIONS: &[&str] = &["not-kube-controller-manager", "may-change-references"];

/// What must fail closed as well, and no proof rests on: no reference comes of servers and namespaces that go, nor of
/// break-glass that is set by way of a status.
const GOING: [Expected; 3] = [
    Expected {
        name: "workload.modelguard.dev",
        rules: &[
            (&["DELETE"], APPS, &["deployments", "statefulsets", "daemonsets"]),
            (
                &["UPDATE"],
                APPS,
                &["deployments/status", "statefulsets/status", "daemonsets/status", "replicasets/status"],
            ),
            (&["UPDATE"], BATCH, &["jobs/status", "cronjobs/status"]),
            (&["UPDATE"], CORE, &["replicationcontrollers/status"]),
        ],
        objects: &[],
        namespaces: &[names::GUARD_LABEL],
        conditions: WORKLOAD_CONDITIONS,
    },
    Expected {
        name: "scale.modelguard.dev",
        rules: &[(&["UPDATE"], APPS, &["deployments/scale", "statefulsets/scale"])],
        objects: &[],
        namespaces: &[names::GUARD_LABEL],
        conditions: &["to-zero"],
    },
    Expected {
        name: "namespace.modelguard.dev",
        rules: &[
            (&["UPDATE", "DELETE"], CORE, &["namespaces"]),
            (&["UPDATE"], CORE, &["namespaces/finalize", "namespaces/status"]),
        ],
        objects: &[names::GUARD_LABEL],
        namespaces: &[],
        conditions: &["goes"],
    },
];

/// The one resource among them that is in no namespace, and its subresources.
fn is_of_cluster(resource: &str) -> bool {
    resource.split('/').next() == Some("namespaces")
}

/// Why a MutatingWebhookConfiguration with these entries does not protect what it should.
pub(super) fn of_mutating(webhooks: &[MutatingWebhook]) -> Option<String> {
    match webhooks.iter().find(|webhook| webhook.name == REVISION.name) {
        None => Some(REVISION.lacking()),
        Some(webhook) => REVISION.left_out(Sent {
            rules: webhook.rules.as_deref().unwrap_or_default(),
            objects: webhook.object_selector.as_ref(),
            namespaces: webhook.namespace_selector.as_ref(),
            conditions: webhook.match_conditions.as_deref().unwrap_or_default(),
        }),
    }
}

/// Why a ValidatingWebhookConfiguration with these entries proves nothing.
pub(super) fn of_validating(webhooks: &[ValidatingWebhook]) -> Option<String> {
    closed(&FAIL_CLOSED, webhooks)
}

/// Why one with these entries lets servers or namespaces go unseen.
pub(super) fn of_going(webhooks: &[ValidatingWebhook]) -> Option<String> {
    closed(&GOING, webhooks)
}

/// Why these entries do not fail closed on what is expected.
fn closed(expected: &[Expected], webhooks: &[ValidatingWebhook]) -> Option<String> {
    expected.iter().find_map(|expected| match webhooks.iter().find(|webhook| webhook.name == expected.name) {
        None => Some(expected.lacking()),
        // Fail is what an absent policy means.
        Some(webhook) if webhook.failure_policy.as_deref().is_some_and(|policy| policy != "Fail") => {
            Some(format!("{} fails open", expected.name))
        }
        Some(webhook) => expected.left_out(Sent {
            rules: webhook.rules.as_deref().unwrap_or_default(),
            objects: webhook.object_selector.as_ref(),
            namespaces: webhook.namespace_selector.as_ref(),
            conditions: webhook.match_conditions.as_deref().unwrap_or_default(),
        }),
    })
}

impl Expected {
    fn lacking(&self) -> String {
        format!("it lacks {}", self.name)
    }

    /// What it should be sent, and is not.
    fn left_out(&self, sent: Sent<'_>) -> Option<String> {
        let name = self.name;
        let unknown = |condition: &&MatchCondition| !self.conditions.contains(&condition.name.as_str());
        None.or_else(|| unsent(self.rules, sent.rules).map(|what| format!("{name} is not sent {what}")))
            .or_else(|| {
                // Nothing but the labels: also what excludes objects, which the chart never does.
                let label = narrowing(sent.objects, |it| is_met(it, self.objects))?;
                Some(format!("{name} leaves out objects by their label {label}"))
            })
            .or_else(|| {
                let label = narrowing(sent.namespaces, |it| excludes(it) || is_met(it, self.namespaces))?;
                Some(format!("{name} leaves out namespaces by their label {label}"))
            })
            .or_else(|| {
                let condition = sent.conditions.iter().find(unknown)?;
                Some(format!("{name} leaves out requests by the condition {}", condition.name))
            })
    }
}

/// The first operation that an entry must be sent, and none of its rules has.
fn unsent(needed: &[Rule], rules: &[RuleWithOperations]) -> Option<String> {
    let has = |all: Option<&Vec<String>>, one: &str| all.is_some_and(|all| all.iter().any(|it| it == one || it == "*"));
    let is_sent = |operation: &str, (group, version): (&str, &str), resource: &str| {
        rules.iter().any(|rule| {
            has(rule.operations.as_ref(), operation)
                && has(rule.api_groups.as_ref(), group)
                && has(rule.api_versions.as_ref(), version)
                && (has(rule.resources.as_ref(), resource) || has(rule.resources.as_ref(), "*/*"))
                && rule.scope.as_deref() != Some(if is_of_cluster(resource) { "Namespaced" } else { "Cluster" })
        })
    };
    needed.iter().find_map(|(operations, group, resources)| {
        let mut each = operations.iter().flat_map(|operation| resources.iter().map(move |it| (operation, it)));
        let (operation, resource) = each.find(|(operation, resource)| !is_sent(operation, *group, resource))?;
        Some(format!("{operation} of {resource}"))
    })
}

/// Whether everything meets the requirement that carries one of these labels as it counts: the guard's with its one value.
fn is_met(it: &LabelSelectorRequirement, labels: &[&str]) -> bool {
    let has_enabled = || it.values.iter().flatten().any(|value| value == names::GUARD_ENABLED);
    let is_enough = || it.operator == "In" && it.key == names::GUARD_LABEL && has_enabled();
    labels.contains(&&*it.key) && (it.operator == "Exists" || is_enough())
}

/// Namespaces may be excluded: by the chart's `excludeNamespaces`, and by what a provider of clusters adds.
fn excludes(it: &LabelSelectorRequirement) -> bool {
    matches!(it.operator.as_str(), "NotIn" | "DoesNotExist")
}

/// The first label by which more is left out than is allowed.
fn narrowing(selector: Option<&LabelSelector>, is_allowed: impl Fn(&LabelSelectorRequirement) -> bool) -> Option<&str> {
    let selector = selector?;
    let exact = selector.match_labels.iter().flatten().map(|(label, _)| label);
    let expressions = selector.match_expressions.iter().flatten();
    let mut all = exact.chain(expressions.filter(|it| !is_allowed(it)).map(|it| &it.key));
    all.next().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The entries as the chart makes them, in what matters here.
    fn validating() -> Value {
        let versioned = |operations: &[&str], group: &str, version: &str, resources: &[&str]| {
            json!({"operations": operations, "apiGroups": [group], "apiVersions": [version],
                   "resources": resources, "scope": "Namespaced"})
        };
        let rule = |operations: &[&str], group: &str, resources: &[&str]| versioned(operations, group, "v1", resources);
        let excluded =
            json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["modelguard-system"]});
        let guarded = json!({"key": "modelguard.dev/guard", "operator": "In", "values": ["enabled"]});
        let both = ["CREATE", "UPDATE"];
        json!([
            {
                "name": "catalog.modelguard.dev", "failurePolicy": "Fail",
                "rules": [rule(&["CREATE", "UPDATE", "DELETE"], "", &["configmaps"])],
                "objectSelector": {"matchExpressions": [{"key": "modelguard.dev/catalog", "operator": "Exists"}]},
                "namespaceSelector": {"matchExpressions": [excluded]},
                "matchConditions": [{"name": "not-our-own-annotations", "expression": "true"}],
            },
            {
                "name": "workload.modelguard.dev", "failurePolicy": "Fail",
                "rules": [
                    rule(&both, "apps", &["deployments", "statefulsets", "daemonsets", "replicasets"]),
                    rule(&both, "batch", &["jobs", "cronjobs"]),
                    rule(&both, "", &["pods", "replicationcontrollers"]),
                    rule(&["UPDATE"], "", &["pods/ephemeralcontainers"]),
                    rule(&["UPDATE"], "", &["pods/status"]),
                    rule(&["UPDATE"], "apps", &["replicasets/scale"]),
                    versioned(&both, "argoproj.io", "v1alpha1", &["rollouts"]),
                    rule(&["DELETE"], "apps", &["deployments", "statefulsets", "daemonsets"]),
                    rule(&["UPDATE"], "apps", &["deployments/status", "statefulsets/status", "daemonsets/status"]),
                    rule(&["UPDATE"], "apps", &["replicasets/status"]),
                    rule(&["UPDATE"], "batch", &["jobs/status", "cronjobs/status"]),
                    rule(&["UPDATE"], "", &["replicationcontrollers/status"]),
                ],
                "objectSelector": {},
                "namespaceSelector": {"matchExpressions": [guarded, excluded]},
                "matchConditions": [
                    {"name": "not-kube-controller-manager", "expression": "true"},
                    {"name": "may-change-references", "expression": "true"},
                ],
            },
            {
                "name": "scale.modelguard.dev", "failurePolicy": "Fail",
                "rules": [rule(&["UPDATE"], "apps", &["deployments/scale", "statefulsets/scale"])],
                "namespaceSelector": {"matchExpressions": [guarded, excluded]},
                "matchConditions": [{"name": "to-zero", "expression": "true"}],
            },
            {
                "name": "namespace.modelguard.dev", "failurePolicy": "Fail",
                "rules": [{"operations": ["UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
                           "resources": ["namespaces"], "scope": "Cluster"},
                          {"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                           "resources": ["namespaces/finalize", "namespaces/status"], "scope": "Cluster"}],
                "namespaceSelector": {"matchExpressions": [excluded]},
                "objectSelector": {"matchExpressions": [guarded]},
                "matchConditions": [{"name": "goes", "expression": "true"}],
            },
        ])
    }

    fn entries(webhooks: &Value) -> Vec<ValidatingWebhook> {
        let complete = |webhook: &Value| {
            let mut webhook = webhook.clone();
            webhook["clientConfig"] = json!({});
            webhook["sideEffects"] = "None".into();
            webhook["admissionReviewVersions"] = json!(["v1"]);
            webhook
        };
        let all: Vec<_> = webhooks.as_array().unwrap().iter().map(complete).collect();
        serde_json::from_value(all.into()).unwrap()
    }

    fn defect(webhooks: &Value) -> Option<String> {
        of_validating(&entries(webhooks))
    }

    #[test]
    fn what_is_altered_is_named() {
        assert_eq!(defect(&validating()), None);
        for (at, value, expected) in [
            ("/0/name", json!("other"), "it lacks catalog.modelguard.dev"),
            ("/1/name", json!("other"), "it lacks workload.modelguard.dev"),
            ("/1/failurePolicy", json!("Ignore"), "workload.modelguard.dev fails open"),
            ("/0/rules", json!([]), "catalog.modelguard.dev is not sent CREATE of configmaps"),
            (
                "/0/rules/0/operations",
                json!(["CREATE", "UPDATE"]),
                "catalog.modelguard.dev is not sent DELETE of configmaps",
            ),
            ("/0/rules/0/apiVersions", json!(["v2"]), "catalog.modelguard.dev is not sent CREATE of configmaps"),
            ("/0/rules/0/scope", json!("Cluster"), "catalog.modelguard.dev is not sent CREATE of configmaps"),
            ("/1/rules/1/resources", json!(["jobs"]), "workload.modelguard.dev is not sent CREATE of cronjobs"),
            (
                "/1/rules/3/resources",
                json!(["pods"]),
                "workload.modelguard.dev is not sent UPDATE of pods/ephemeralcontainers",
            ),
            ("/1/rules/6/apiVersions", json!(["v1"]), "workload.modelguard.dev is not sent CREATE of rollouts"),
            (
                "/0/objectSelector/matchLabels",
                json!({"tier": "gold"}),
                "catalog.modelguard.dev leaves out objects by their label tier",
            ),
            (
                "/0/objectSelector/matchExpressions/0",
                json!({"key": "modelguard.dev/catalog", "operator": "In", "values": ["keys"]}),
                "catalog.modelguard.dev leaves out objects by their label modelguard.dev/catalog",
            ),
            (
                "/1/objectSelector/matchExpressions",
                json!([{"key": "skip", "operator": "DoesNotExist"}]),
                "workload.modelguard.dev leaves out objects by their label skip",
            ),
            (
                "/0/namespaceSelector/matchLabels",
                json!({"team": "a"}),
                "catalog.modelguard.dev leaves out namespaces by their label team",
            ),
            (
                "/1/namespaceSelector/matchExpressions/0/values",
                json!(["strictly"]),
                "workload.modelguard.dev leaves out namespaces by their label modelguard.dev/guard",
            ),
            (
                "/1/matchConditions/1/name",
                json!("not-on-fridays"),
                "workload.modelguard.dev leaves out requests by the condition not-on-fridays",
            ),
        ] {
            assert_eq!(defect(&with(at, &value)).as_deref(), Some(expected), "{at} {value}");
        }
    }

    #[test]
    fn what_lets_servers_and_namespaces_go_is_named_and_voids_no_proof() {
        assert_eq!(of_going(&entries(&validating())), None);
        let deleted = "workload.modelguard.dev is not sent DELETE of deployments";
        for (at, value, expected) in [
            ("/1/rules/7/operations", json!(["UPDATE"]), deleted),
            ("/2/name", json!("other"), "it lacks scale.modelguard.dev"),
            ("/2/failurePolicy", json!("Ignore"), "scale.modelguard.dev fails open"),
            (
                "/2/rules/0/resources",
                json!(["deployments/scale"]),
                "scale.modelguard.dev is not sent UPDATE of statefulsets/scale",
            ),
            (
                "/2/matchConditions/0/name",
                json!("never"),
                "scale.modelguard.dev leaves out requests by the condition never",
            ),
            ("/3/name", json!("other"), "it lacks namespace.modelguard.dev"),
            ("/3/failurePolicy", json!("Ignore"), "namespace.modelguard.dev fails open"),
            ("/3/rules/0/operations", json!(["UPDATE"]), "namespace.modelguard.dev is not sent DELETE of namespaces"),
            (
                "/3/rules/1/resources",
                json!(["namespaces/finalize"]),
                "namespace.modelguard.dev is not sent UPDATE of namespaces/status",
            ),
            ("/1/rules/8/resources", json!([]), "workload.modelguard.dev is not sent UPDATE of deployments/status"),
            ("/3/rules/0/scope", json!("Namespaced"), "namespace.modelguard.dev is not sent UPDATE of namespaces"),
            (
                "/3/objectSelector/matchLabels",
                json!({"team": "a"}),
                "namespace.modelguard.dev leaves out objects by their label team",
            ),
            (
                "/3/objectSelector/matchExpressions/0/values",
                json!(["strictly"]),
                "namespace.modelguard.dev leaves out objects by their label modelguard.dev/guard",
            ),
        ] {
            let altered = with(at, &value);
            assert_eq!(of_going(&entries(&altered)).as_deref(), Some(expected), "{at} {value}");
            assert_eq!(defect(&altered), None, "{at} {value}");
        }
    }

    #[test]
    fn what_is_sent_more_or_by_another_name_is_no_defect() {
        for (at, value) in [
            ("/0/rules/0/operations", json!(["*"])),
            (
                "/1/rules/2",
                json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}),
            ),
            ("/0/objectSelector", Value::Null),
            ("/1/namespaceSelector/matchExpressions/0", json!({"key": "modelguard.dev/guard", "operator": "Exists"})),
            ("/1/namespaceSelector/matchExpressions/1", json!({"key": "control-plane", "operator": "DoesNotExist"})),
            ("/0/failurePolicy", Value::Null),
            ("/1/matchConditions", Value::Null),
        ] {
            assert_eq!(defect(&with(at, &value)), None, "{at} {value}");
        }
    }

    #[test]
    fn the_mutating_entry_may_fail_open() {
        let entry = |name: &str, label: &str| {
            let webhook = json!([{
                "name": name, "failurePolicy": "Ignore", "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
                "objectSelector": {"matchExpressions": [{"key": label, "operator": "Exists"}]},
            }]);
            of_mutating(&serde_json::from_value::<Vec<MutatingWebhook>>(webhook).unwrap())
        };
        assert_eq!(entry(REVISION.name, "modelguard.dev/catalog"), None);
        assert_eq!(entry("other", "modelguard.dev/catalog").unwrap(), "it lacks revision.modelguard.dev");
        let expected = "revision.modelguard.dev leaves out objects by their label tier";
        assert_eq!(entry(REVISION.name, "tier").unwrap(), expected);
    }

    /// The entries with something else at that place.
    fn with(at: &str, value: &Value) -> Value {
        let mut webhooks = validating();
        let (parent, field) = at.rsplit_once('/').unwrap();
        match webhooks.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
            object => object[field] = value.clone(),
        }
        webhooks
    }
}
