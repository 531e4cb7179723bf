//! P4: looks again and again at what should not be there, by the watches, and says what it finds.
//!
//! Every replica counts, for each has its watches; who leads writes the log.

use crate::audit::{self, Finding, Findings};
use crate::world::cluster::Cluster;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

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
            if cluster.progress.leadership.borrow().is_leader {
                tell(&found, &told);
                told = found;
            }
        }
        earlier = look;
    }
}

/// One look; `None` while it is not known what is there.
fn look(cluster: &Cluster, configuration: &str) -> Option<Findings> {
    let index = cluster.index.read();
    index.synced().then(|| audit::look(&index, &cluster.progress.arming.read(), configuration))
}

/// Says what came, and what went, since it was said last.
fn tell(found: &Findings, told: &Findings) {
    for Finding { kind, object, message, .. } in found.listed().filter(|finding| !told.lists(finding)) {
        warn!(finding = kind.name(), %object, %message, "the audit found something");
    }
    for Finding { kind, object, message, .. } in told.listed().filter(|finding| !found.lists(finding)) {
        info!(finding = kind.name(), %object, %message, "what the audit found is over");
    }
}
