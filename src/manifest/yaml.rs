//! YAML to JSON, document by document.
//!
//! Plain scalars become what the core schema of YAML 1.2 says (null, booleans, numbers, else text), quoted ones
//! are text, and `<<` merges as in YAML 1.1, for manifests use it. A key that stands twice, and a tag or a number
//! that JSON does not have, is an error. The catalogs' reader is another one on purpose: to it every scalar is its
//! text, so that `1.10` stays a version.

use super::{Document, ManifestError};
use serde_json::Value;
use serde_saphyr::{
    DuplicateKeyPolicy, Error, MergeKeyPolicy, MessageFormatter as _, Options, Spanned, UserMessageFormatter,
};

/// How deep lists and maps may nest. The deepest custom resource definitions take some 50; a level takes up to
/// 15 kB of the 2 MiB that a thread's stack has, and an overflow would end the process.
const DEEPEST: usize = 64;

/// How many values one file may have, with all that aliases repeat: 100,000 pods as `kubectl get` prints them.
const MOST_VALUES: usize = 20_000_000;

pub(super) fn read(text: &str) -> Result<Vec<Document>, ManifestError> {
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| fault(&error))?;
    let document = |Spanned { value, referenced, .. }: Spanned<Value>| Document {
        line: usize::try_from(referenced.line()).unwrap_or(1),
        json: value.to_string(),
    };
    Ok(documents.into_iter().map(document).collect())
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            max_nodes: MOST_VALUES,
            max_events: 2 * MOST_VALUES,
            max_documents: MOST_VALUES,
            max_merge_keys: MOST_VALUES,
            max_anchors: MOST_VALUES,
            max_aliases: MOST_VALUES,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn fault(error: &Error) -> ManifestError {
    let error = error.without_snippet();
    let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (line, column) = error.location().map_or((1, 1), |at| (place(at.line()), place(at.column())));
    ManifestError { line, column, expected: format!("valid YAML ({})", UserMessageFormatter.format_message(error)) }
}
