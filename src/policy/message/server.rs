//! What is said of servers: to who needs one, and to who takes the last one away.

use super::{NAMES, cause, causes, denial, list, subject, used_by};
use crate::catalog::EntryName;
use crate::names;
use crate::policy::server::Deserted;
use crate::policy::{Code, Denial, WorkloadChange};
use crate::reference::CatalogKey;

/// MG203: nobody who is ready serves the entry.
pub(in crate::policy) fn not_served(change: &WorkloadChange, key: &CatalogKey, entry: &EntryName) -> Denial {
    let what = format!("it references entry {entry} of model ConfigMap {key}, which no ready server serves.");
    let next = format!(
        "This is step 2 (roll out the app) of a release; first wait until a workload with the annotation {} for it is ready.",
        names::SERVES
    );
    let causes = vec![cause(format_args!("{key}:{entry}"), &what)];
    denial(Code::NotServed, Code::NotServed.status(), &subject(change), &what, &next, causes)
}

/// MG301: these entries would be left without a ready server; `None` if there are none.
pub(in crate::policy) fn last_server(change: &WorkloadChange, deserted: &[Deserted<'_>]) -> Option<Denial> {
    let first = deserted.first()?;
    let fact = |it: &Deserted<'_>| {
        let leaving = it.leaving.map(|id| format!("; {} {}/{} is leaving, too", id.kind, id.namespace, id.name));
        let leaving = leaving.unwrap_or_default();
        format!("entry {} of model ConfigMap {}, which is {}{leaving}", it.entry, it.catalog, used_by(&it.holders))
    };
    let mut what = format!("it is the last ready server of {}", fact(first));
    if let more @ 1.. = deserted.len() - 1 {
        let others = list(deserted.iter().skip(1).map(|it| it.entry), NAMES);
        what = format!("{what}; and of {more} more: {others}");
    }
    let next = "This is step 3 (remove) of a release; finish step 2 (roll out the app) first, or let another server of it \
                become ready.";
    let causes = causes(deserted, |it| cause(format_args!("{}:{}", it.catalog, it.entry), &fact(it)));
    let code = Code::LastServer;
    Some(denial(code, code.status(), &subject(change), &format!("{what}."), next, causes))
}
