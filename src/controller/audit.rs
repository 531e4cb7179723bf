//! P4: looks again and again at what should not be there, by the watches, and says what it finds.
//!
//! Every replica counts, for each has its watches; who leads writes the log, and Events of what is found and of the model
//! ConfigMaps that it is about.

use crate::audit::{self, Finding, Findings};
use crate::event::Event;
use crate::index::Index;
use crate::world::cluster::Cluster;
use crate::world::{LiftError, World as _};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Between two looks. What two of them agree on is found within a minute, watches that lag by some seconds included.
const EVERY: Duration = Duration::from_secs(15);

/// Looks, for ever. `configuration` is what the webhook configurations are called.
pub async fn audit(cluster: Cluster, configuration: String) {
    let mut earlier = None;
    let mut told = Findings::default();
    loop {
        sleep(EVERY).await;
        let look = look(&cluster, &configuration);
        // Before everything was listed, all that is missing would be a finding.
        if let (Some(look), Some(earlier)) = (&look, &earlier) {
            let found = look.also_in(earlier);
            cluster.metrics.audited(&found, Timestamp::now().as_second());
            let leads = cluster.progress.leadership.borrow().is_leader;
            if leads {
                tell(&cluster, &found, &told);
                heal(&cluster, &found).await;
                told = found;
            }
        }
        earlier = look;
    }
}

/// One look; `None` while it is not known what is there.
fn look(cluster: &Cluster, configuration: &str) -> Option<Findings> {
    let index = cluster.index.read();
    index.missing().next().is_none().then(|| audit::look(&index, &cluster.progress.arming.read(), configuration))
}

/// What people should find beside the object, and beside the model ConfigMap if there is one.
fn events(index: &Index, finding: &Finding) -> Vec<Event> {
    let facts = finding.catalog.as_ref().and_then(|catalog| index.catalog(catalog));
    Event::found(finding, facts.map(|facts| &*facts.uid)).collect()
}

/// Says what came, and what went, since it was said last.
fn tell(cluster: &Cluster, found: &Findings, told: &Findings) {
    for finding in found.listed().filter(|finding| !told.lists(finding)) {
        let Finding { kind, object, message, .. } = finding;
        warn!(finding = kind.name(), %object, %message, "the audit found something");
        let events = events(&cluster.index.read(), finding);
        events.into_iter().for_each(|event| cluster.announce(event));
    }
    for Finding { kind, object, message, .. } in told.listed().filter(|finding| !found.lists(finding)) {
        info!(finding = kind.name(), %object, %message, "what the audit found is over");
    }
}

/// Asks that what holders lack be put back, where the guard says so and the prior revision lists it. What cannot be, now, is
/// found again by the next look.
async fn heal(cluster: &Cluster, found: &Findings) {
    // Who took a webhook configuration away means that nothing interferes; and a proof to remove it again would not come.
    if !cluster.guard.heals() || cluster.progress.arming.read().defects().next().is_some() {
        return;
    }
    for (catalog, entries) in found.missing() {
        match cluster.restore(catalog, entries).await {
            Ok(Some((uid, restored))) if !restored.is_empty() => {
                info!(%catalog, entries = ?restored, "holders need these entries, which were gone: they were put back");
                cluster.metrics.restored(restored.len());
                cluster.announce(Event::restored(catalog, &uid, restored.iter()));
            }
            Ok(_) => {}
            Err(LiftError::Conflict) => debug!(%catalog, "the ConfigMap changed meanwhile; looking again"),
            Err(error) => warn!(%catalog, %error, "entries that holders lack could not be put back"),
        }
    }
}
