//! App and model back together, in the safe order; what was begun is gone on with.

use super::app::{App, AppRef, Former};
use super::{Args, ENTRIES, Refusal, choose, describe, outcome, say, write};
use crate::cli::connect::Cluster;
use crate::cli::history;
use crate::cli::stored::Stored;
use crate::history::{History, Past, Place};
use crate::names;
use crate::policy;
use crate::reference::{CatalogKey, Need};
use crate::revision::restore::Target;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::time::{Duration, Instant, sleep};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// What is under way, in the annotation [`names::ROLLING_BACK`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plan {
    /// The app, such as `deployment/api`.
    with: String,
    /// The ReplicaSet that keeps the template it goes back to.
    replica_set: String,
    /// The revision of the ConfigMap that it goes back to.
    to: u64,
    /// The one that it comes from: as long as that is stored, nothing was restored.
    from: u64,
}

/// Goes back, or on with going back.
pub(super) async fn roll_back(args: &Args, cluster: &Cluster, key: &CatalogKey, name: &AppRef) -> Result<(), Refusal> {
    let until = Instant::now() + args.timeout;
    let stored = Stored::read(cluster, key).await?.with_context(|| {
        format!("ConfigMap {key} is gone; restore it first, by `rollback {}` without --with", key.name)
    })?;
    let history = history::read(cluster, key, Some(&stored)).await?;
    let app = App::read(cluster, name).await?;
    let (plan, former) = match begun(&stored, args, name)? {
        Some(plan) => {
            say(&format!("going on with the rollback of {key} to revision {} with {name}", plan.to))?;
            let former = app.kept_by(&plan.replica_set)?;
            (plan, former)
        }
        None => {
            let former = app.former()?;
            let past = target(&history, args.to, &former, key)?;
            say(&describe(&history, past))?;
            say(&format!("{name} goes back to its revision {} ({})", former.revision, former.replica_set))?;
            let from = stored.number()?;
            (Plan { with: name.to_string(), replica_set: former.replica_set.clone(), to: past.number, from }, former)
        }
    };
    if args.dry_run {
        let after = super::restore(cluster, key, &stored, plan.to, None, true).await?;
        let past = choose(&history, Some(Target::Number(plan.to)))?;
        return say(&format!(
            "step 1: {}\nsteps 2 and 3 follow; nothing was done",
            outcome(&after, past, true, &stored)
        ));
    }
    restore(cluster, key, &stored, &history, &plan).await?;
    move_app(cluster, app, &former, until).await?;
    settle(cluster, key, until).await?;
    let done = json!({"metadata": {"annotations": {names::ROLLING_BACK: null}}});
    write(cluster, key, &done, false).await?;
    say(&format!("done: {key} and {name} are back"))
}

/// What was begun with this app and not finished.
fn begun(stored: &Stored, args: &Args, name: &AppRef) -> anyhow::Result<Option<Plan>> {
    let Some(text) = stored.annotation(names::ROLLING_BACK)? else { return Ok(None) };
    let hint = format!("remove the annotation {} to begin anew", names::ROLLING_BACK);
    let plan: Plan =
        serde_json::from_str(&text).with_context(|| format!("what is under way cannot be read; {hint}"))?;
    if plan.with != name.to_string() || args.to.is_some_and(|to| to != Target::Number(plan.to)) {
        bail!("a rollback to revision {} with {} is under way: go on with that, or {hint}", plan.to, plan.with);
    }
    Ok(Some(plan))
}

/// The revision that the app can go back with.
fn target<'h>(history: &'h History, to: Option<Target>, former: &Former, key: &CatalogKey) -> anyhow::Result<&'h Past> {
    let needs = former.needs(&key.namespace, key)?;
    let lacks = |past: &Past| -> BTreeSet<_> {
        let catalog = past.catalog();
        let is_listed = |entry: &&crate::catalog::EntryName| catalog.as_ref().is_some_and(|it| it.lists(entry));
        needs.iter().filter_map(Need::entry).filter(|entry| !is_listed(entry)).cloned().collect()
    };
    if let Some(to) = to {
        let past = choose(history, Some(to))?;
        let lacking = lacks(past);
        if !lacking.is_empty() {
            let entries = policy::list(&lacking, ENTRIES);
            bail!("revision {} of {key} does not list {entries}, which the app needs to go back", past.number);
        }
        return Ok(past);
    }
    let fits = |past: &&Past| past.place != Place::Current && past.content.is_ok() && lacks(past).is_empty();
    history.revisions.iter().rev().find(fits).with_context(|| {
        let entries: BTreeSet<_> = needs.iter().filter_map(Need::entry).collect();
        format!("no kept revision of {key} lists what the app needs to go back: {}", policy::list(entries, ENTRIES))
    })
}

/// Step 1: the model versions are there again.
async fn restore(
    cluster: &Cluster,
    key: &CatalogKey,
    stored: &Stored,
    history: &History,
    plan: &Plan,
) -> Result<(), Refusal> {
    if stored.number()? != plan.from {
        return say(&format!("step 1, restore: {key} was restored already"));
    }
    let past = choose(history, Some(Target::Number(plan.to)))?;
    let text = serde_json::to_string(plan).context("write down what is under way")?;
    let after = super::restore(cluster, key, stored, plan.to, Some(&text), false).await?;
    say(&format!("step 1, restore: {}", outcome(&after, past, false, stored)))
}

/// Step 2: the app's pods are what they were.
async fn move_app(cluster: &Cluster, mut app: App, former: &Former, until: Instant) -> Result<(), Refusal> {
    let name = app.name.clone();
    if !app.has(former) {
        app.roll_back(cluster, former, false).await?;
    }
    let mut told = String::new();
    loop {
        app = App::read(cluster, &name).await?;
        if !app.has(former) {
            let why = format!("somebody else changed {name} meanwhile; look at it, and ask again");
            return Err(Refusal::Denied(why));
        }
        match app.progress() {
            Ok(()) => return say(&format!("step 2, roll back: {name} is back")),
            Err(far) if far != told => {
                say(&format!("step 2, roll back: {far}"))?;
                told = far;
            }
            Err(_) => {}
        }
        wait(until, &name.to_string()).await?;
    }
}

/// Step 3: what came since goes.
async fn settle(cluster: &Cluster, key: &CatalogKey, until: Instant) -> Result<(), Refusal> {
    let mut told = BTreeSet::new();
    loop {
        let stored = Stored::read(cluster, key).await?.with_context(|| format!("ConfigMap {key} is gone"))?;
        let retained = stored.retained()?;
        if retained.is_empty() {
            return say("step 3, remove: nothing is left of what came since");
        }
        if retained != told {
            let (stays, them) = if retained.len() == 1 { ("stays", "it") } else { ("stay", "them") };
            let entries = policy::list(&retained, ENTRIES);
            say(&format!("step 3, remove: {entries} {stays} until it is proven that nobody uses {them}"))?;
            told = retained;
        }
        wait(until, &key.to_string()).await?;
    }
}

async fn wait(until: Instant, what: &str) -> Result<(), Refusal> {
    if Instant::now() + LOOK > until {
        return Err(Refusal::Denied(format!("{what} is not there yet, and time is up; ask again to go on")));
    }
    sleep(LOOK).await;
    Ok(())
}
