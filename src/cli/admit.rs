//! A review's way through admission, as the API server sends it: first to `/mutate`, then to `/validate`.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde_json::Value;

/// The answer to `review`, which is changed as the mutating webhook wants; what it has been through already is not
/// changed by it again. `post` sends a body to a path, and gives the answer.
pub(super) async fn admit(
    review: &mut Value,
    post: impl AsyncFn(&'static str, Vec<u8>) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let request = &review["request"];
    if request["kind"]["kind"] == "ConfigMap" && request["object"].is_object() {
        let answer = post("/mutate", review.to_string().into()).await?;
        if answer["response"]["allowed"] != true {
            return Ok(answer);
        }
        if let Some(patch) = answer["response"]["patch"].as_str() {
            let patch = STANDARD.decode(patch).context("the patch is not base64")?;
            let patch: Patch = serde_json::from_slice(&patch).context("the patch is not JSON")?;
            json_patch::patch(&mut review["request"]["object"], &patch).context("the patch does not fit")?;
        }
    }
    let answer = post("/validate", review.to_string().into()).await?;
    if !answer["response"]["allowed"].is_boolean() {
        bail!("the webhook answered without a verdict: {answer}");
    }
    Ok(answer)
}

/// The code that a denial's message begins with.
pub(super) fn code(message: &str) -> Option<&str> {
    message.strip_prefix('[')?.split_once(']').map(|(code, _)| code)
}
