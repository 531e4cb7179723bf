//! `modelguard diff`: what tells two revisions of a model ConfigMap apart.

mod view;

use crate::cli::history::{self, Of, kept};
use crate::cli::output::{self, Format, Paint};
use crate::cli::{Exit, block_on};
use crate::history::{History, Past};
use crate::revision::restore::Target;
use anyhow::{Context as _, anyhow};
use serde_json::json;
use view::{Difference, Side};

/// What `diff` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    of: Of,
    /// Number of the older revision, or `prior` [default: the one before the other]
    #[arg(long, value_name = "REVISION", value_parser = history::target)]
    from: Option<Target>,
    /// Number of the newer revision, or `prior` [default: the current one]
    #[arg(long, value_name = "REVISION", value_parser = history::target)]
    to: Option<Target>,
    #[command(flatten)]
    output: output::Args,
}

/// Compares, and prints the difference.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let history = block_on(args.of.read())??;
    let (from, to) = sides(&history, args.from, args.to)?;
    let names = [from, to].map(|past| format!("revision {}", past.number));
    let side = |past, name| side(past, name).with_context(|| format!("ConfigMap {}", history.config_map));
    let difference = Difference::between(side(from, &names[0])?, side(to, &names[1])?);
    let value = || {
        let mut value = difference.value();
        value["from"] = json!(from.number);
        value["to"] = json!(to.number);
        value
    };
    output::print(&match args.output.output {
        Format::Json => format!("{}\n", value()),
        Format::Yaml => output::yaml(&value())?,
        Format::Table => match difference.table(Paint::stdout()) {
            nothing if nothing.is_empty() => format!("{} and {} are equal\n", names[0], names[1]),
            text => text,
        },
    })?;
    Ok(Exit::Fine)
}

/// The two that are meant.
fn sides(history: &History, from: Option<Target>, to: Option<Target>) -> anyhow::Result<(&Past, &Past)> {
    // What is gone has no current one.
    let newest = || history.revisions.last().with_context(|| kept(history));
    let to = to.map_or_else(newest, |target| find(history, target))?;
    let before = || {
        let older = history.revisions.iter().rfind(|past| past.number < to.number);
        older.with_context(|| format!("nothing is kept from before revision {}: {}", to.number, kept(history)))
    };
    Ok((from.map_or_else(before, |target| find(history, target))?, to))
}

fn find(history: &History, target: Target) -> anyhow::Result<&Past> {
    let (found, asked) = match target {
        Target::Prior => (history.earlier().next_back(), "a prior revision".to_owned()),
        Target::Number(number) => (history.get(number), format!("revision {number}")),
    };
    found.with_context(|| format!("{asked} is not kept: {}", kept(history)))
}

fn side<'a>(past: &'a Past, name: &'a str) -> anyhow::Result<Side<'a>> {
    let content = past.content.as_ref();
    let (_, content) = content.map_err(|damage| anyhow!("{name} is damaged: {} {damage}", past.place.name()))?;
    Ok(Side { name, catalog: &past.catalog, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::history::tests::history;

    #[test]
    fn the_prior_revision_and_the_current_one_are_compared_unless_others_are_named() {
        let history = history(&[1, 2, 4], true);
        let number = |number| Some(Target::Number(number));
        for (from, to, expected) in [
            (None, None, (2, 4)),
            (number(1), None, (1, 4)),
            (None, number(2), (1, 2)),
            (number(4), number(1), (4, 1)),
            (number(1), Some(Target::Prior), (1, 2)),
        ] {
            let (from, to) = sides(&history, from, to).unwrap();
            assert_eq!((from.number, to.number), expected);
        }
        let error = |from, to| sides(&history, from, to).unwrap_err().to_string();
        let kept = "kept are 1, 2, and the current one is 4";
        assert_eq!(error(number(3), None), format!("revision 3 is not kept: {kept}"));
        assert_eq!(error(None, number(1)), format!("nothing is kept from before revision 1: {kept}"));
    }

    #[test]
    fn of_what_is_gone_the_last_two_are_compared() {
        let history = history(&[1, 2, 3], false);
        let (from, to) = sides(&history, None, None).unwrap();
        assert_eq!((from.number, to.number), (2, 3));
    }

    #[test]
    fn what_is_damaged_is_not_compared() {
        let mut history = history(&[1, 2], true);
        history.revisions[0].content = Err("does not match its digest".to_owned());
        let error = side(&history.revisions[0], "revision 1").unwrap_err().to_string();
        assert_eq!(error, "revision 1 is damaged: annotation does not match its digest");
    }
}
