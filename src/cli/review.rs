//! `modelguard review`: what the webhook says to a saved AdmissionReview.

use crate::admission::{App, Limits};
use crate::cli::admit::{admit, code};
use crate::cli::output::{self, Format, Paint};
use crate::cli::{Exit, block_on};
use crate::guard::Guard;
use crate::metrics::{self, Metrics};
use crate::record::Log;
use crate::shutdown;
use crate::world::standalone::{CarriedUsage, Standalone};
use anyhow::{Context as _, bail};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tower::ServiceExt as _;

/// What `review` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// AdmissionReview in JSON, `-` for stdin; it is sent to /mutate and /validate as the API server would
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of manifests that it is judged in; a usage annotation in its oldObject counts as proof
    #[arg(long, value_name = "DIR")]
    world: PathBuf,
    #[command(flatten)]
    output: output::Args,
}

/// Judges it, and prints the verdict.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut review = read(&args.file)?;
    let answer = block_on(judge(&mut review, &args.world))??;
    let text = match args.output.output {
        Format::Json => format!("{answer}\n"),
        Format::Yaml => output::yaml(&answer)?,
        Format::Table => table(&review, &answer, Paint::stdout()),
    };
    output::print(&text)?;
    Ok(if answer["response"]["allowed"] == true { Exit::Fine } else { Exit::Findings })
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    read.with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}

async fn judge(review: &mut Value, dir: &Path) -> anyhow::Result<Value> {
    let world = Standalone::open(dir, Guard::default(), CarriedUsage::Counts).await?;
    let (_trigger, shutdown) = shutdown::channel();
    let metrics = Metrics::register(&mut metrics::registry());
    // The decision is printed; the record of it is for those who serve.
    let (log, _writer) = Log::start(io::sink(), &metrics).context("start the decision log")?;
    let router = Arc::new(App::new(world.into(), None, Limits::default(), metrics, log, shutdown)).router();
    let answer = admit(review, async |path, body| {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body))?;
        let response = router.clone().oneshot(request).await?;
        let is_answer = response.status().is_success();
        let body = to_bytes(response.into_body(), usize::MAX).await?;
        if !is_answer {
            bail!("{}", String::from_utf8_lossy(&body).trim_end());
        }
        serde_json::from_slice(&body).context("the answer is not JSON")
    });
    let answer = answer.await?;
    // A verdict on what could not even be read is none that the file's author asked for.
    if answer["response"]["status"]["code"] == 400 {
        bail!("{}", answer["response"]["status"]["message"].as_str().unwrap_or_default().replace('\n', " "));
    }
    Ok(answer)
}

fn table(review: &Value, answer: &Value, paint: Paint) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (request, response) = (&review["request"], &answer["response"]);
    let [operation, namespace, name] = ["operation", "namespace", "name"].map(|field| text(&request[field]));
    let asked = format!("{operation} {} {namespace}/{name}", text(&request["kind"]["kind"]));
    let message = text(&response["status"]["message"]);
    let verdict = match response["allowed"] == true {
        true => paint.good("allowed"),
        false => paint.bad(&format!("denied {}", code(&message).unwrap_or_default())),
    };
    let mut lines = vec![format!("{verdict}  {asked}")];
    lines.extend(output::wrap(&message, output::WIDTH - 2).iter().map(|line| format!("  {line}")));
    let warnings = response["warnings"].as_array().into_iter().flatten();
    lines.extend(warnings.map(|warning| format!("  warning: {}", text(warning))));
    lines.join("\n") + "\n"
}
