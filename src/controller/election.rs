//! The election: one replica acts at a time, by a Lease that is renewed by compare-and-swap.
//!
//! As in client-go, no clock of another machine is trusted: a Lease has expired once it has not *changed* for
//! its duration by one's own monotonic clock. The loser of a race gets a 409 and looks again.

use super::trouble::Trouble;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

/// How long a Lease lasts that nobody renews.
const DURATION: Duration = Duration::from_secs(15);

/// How often the Lease is looked at, and renewed: five attempts before it is lost.
const PERIOD: Duration = Duration::from_secs(3);

/// The longest that one look may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who leads, as this process sees it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leadership {
    /// This process acts.
    pub is_leader: bool,
    /// Somebody does.
    pub is_live: bool,
}

/// A candidate.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Sighting>,
    renewed: Option<Instant>,
    told: watch::Sender<Leadership>,
}

/// The Lease as it was when it last changed.
struct Sighting {
    version: String,
    since: Instant,
}

/// Why a look at the Lease came to nothing.
#[derive(Debug, Error)]
enum Error {
    /// The API server said so.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The API server said nothing.
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl Election {
    /// A candidate called `identity` for the Lease `namespace/name`, who tells `told` how it goes.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        identity: String,
        told: watch::Sender<Leadership>,
    ) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, name: name.to_owned(), identity, seen: None, renewed: None, told }
    }

    /// Stands for election until `stop` resolves, then gives the Lease back so that another one need not wait.
    ///
    /// What it told last goes on to be told for as long as the candidate lives.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut trouble = Trouble::new("read or renew the Lease");
        loop {
            match timeout(PATIENCE, self.look()).await.map_err(Error::from).and_then(|looked| looked) {
                Ok(()) => trouble.over(),
                Err(Error::Kube(kube::Error::Api(status))) if status.code == 409 => {
                    debug!(lease = self.name, "another replica was faster");
                }
                Err(error) => trouble.is(&error),
            }
            self.tell();
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = &mut stop => break,
            }
        }
        self.step_down().await;
    }

    /// Reads the Lease, and takes or renews it where that is due.
    async fn look(&mut self) -> Result<(), Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            self.leases.create(&PostParams::default(), &lease).await?;
            self.renewed = Some(Instant::now());
            return Ok(());
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.has_expired(version) {
            self.renewed = None;
            return Ok(());
        }
        let attempted = Instant::now();
        let mine = Lease { spec: Some(self.spec(Some(&spec))), ..lease };
        self.leases.replace(&self.name, &PostParams::default(), &mine).await?;
        self.renewed = Some(attempted);
        Ok(())
    }

    /// Whether somebody else's Lease has not changed for its whole duration.
    fn has_expired(&mut self, version: String) -> bool {
        match &self.seen {
            Some(seen) if seen.version == version => seen.since.elapsed() > DURATION,
            _ => {
                self.seen = Some(Sighting { version, since: Instant::now() });
                false
            }
        }
    }

    /// The Lease as this candidate holds it.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let before = before.cloned().unwrap_or_default();
        let keeps = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if keeps { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if keeps { transitions } else { transitions + 1 }),
            ..before
        }
    }

    /// Says who leads now. A leader that could not renew stops acting before another one may begin.
    fn tell(&self) {
        let is_leader = self.renewed.is_some_and(|renewed| renewed.elapsed() < DURATION - PERIOD);
        let others = self.seen.as_ref().is_some_and(|seen| seen.since.elapsed() <= DURATION);
        let now = Leadership { is_leader, is_live: is_leader || others };
        self.told.send_if_modified(|told| {
            let changed = *told != now;
            if told.is_leader != now.is_leader {
                info!(lease = self.name, identity = self.identity, leader = now.is_leader, "leadership changed");
            }
            *told = now;
            changed
        });
    }

    async fn step_down(&mut self) {
        // No longer acting comes before others may.
        self.told.send_replace(Leadership::default());
        if self.renewed.take().is_none() {
            return;
        }
        let free = async {
            let mut lease = self.leases.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity)) {
                spec.holder_identity = Some(String::new());
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = timeout(PATIENCE, free).await.map_err(Error::from).and_then(|freed| freed) {
            debug!(lease = self.name, %error, "could not give the Lease back; it expires by itself");
        }
    }
}
