//! Every label, annotation and media type that modelguard reads or writes, named once.

/// Label of a model ConfigMap; its value names the catalog's format.
pub const CATALOG_LABEL: &str = "modelguard.dev/catalog";
/// Label of a namespace whose workloads hold or serve entries.
pub const GUARD_LABEL: &str = "modelguard.dev/guard";
/// The one value of [`GUARD_LABEL`] that opts in.
pub const GUARD_ENABLED: &str = "enabled";

/// Number of a model ConfigMap's revision, counted from 1. Owned by modelguard.
pub const REVISION: &str = "modelguard.dev/revision";
/// The content before the last change, one JSON object. Owned by modelguard.
pub const PRIOR_REVISION: &str = "modelguard.dev/prior-revision";
/// The usage states other than InUse. Owned by modelguard.
pub const USAGE: &str = "modelguard.dev/usage";
/// Entries whose removal was deferred. Owned by modelguard.
pub const RETAINED: &str = "modelguard.dev/retained";
/// Asks the mutating webhook to remove what is retained and Idle, in the same write; never stored.
pub const RETIRE: &str = "modelguard.dev/retire";
/// Asks the mutating webhook to put back entries of the prior revision, in the same write; never stored.
pub const RESTORE: &str = "modelguard.dev/restore";
/// Asks the mutating webhook to restore a revision in the same write: `prior`, or its number; never stored.
pub const ROLLBACK_TO: &str = "modelguard.dev/rollback-to";
/// What `modelguard rollback --with` is in the middle of, one JSON object; set and removed as its user.
pub const ROLLING_BACK: &str = "modelguard.dev/rolling-back";
/// The annotations whose value only modelguard decides: what a client sends for them is replaced, or done.
pub const OWNED: [&str; 7] = [REVISION, PRIOR_REVISION, USAGE, RETAINED, RETIRE, RESTORE, ROLLBACK_TO];

/// Label of a ControllerRevision that keeps a content of a model ConfigMap: whose.
pub const HISTORY_OF: &str = "modelguard.dev/history-of";
/// Annotation of such a ControllerRevision: the revisions that stored this content, a JSON array.
pub const REVISIONS: &str = "modelguard.dev/revisions";
/// Annotation of such a ControllerRevision: since when its ConfigMap is gone, RFC 3339.
pub const ORPHANED: &str = "modelguard.dev/orphaned-since";

/// Namespaces whose workloads may reference a model ConfigMap besides its own.
pub const SHARED_WITH: &str = "modelguard.dev/shared-with";
/// Entries that people keep for consumers no cluster object shows.
pub const HOLD: &str = "modelguard.dev/hold";

/// Until when, and why, whoever may passes the rules: `<RFC 3339 time, at most 1 h ahead> <reason>`.
pub const BREAK_GLASS: &str = "modelguard.dev/break-glass";

/// Pod template annotation: explicit references.
pub const USES: &str = "modelguard.dev/uses";
/// Pod template annotation: the entries that this workload serves.
pub const SERVES: &str = "modelguard.dev/serves";

/// The API group, resource and verb of the permission that break-glass takes.
pub const OVERRIDE: (&str, &str, &str) = ("modelguard.dev", "releaseguards", "override");

/// The field manager of every write that modelguard makes.
pub const FIELD_MANAGER: &str = "modelguard";
