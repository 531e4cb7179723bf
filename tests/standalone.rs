//! What works without a cluster, with the real binary: `serve --standalone`, `review` and `demo`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and helpers are tests too")]

use axum::http::Request;
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// The model ConfigMap that the recorded reviews are about.
const MODELS: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: extraction-models
  namespace: prod
  labels: {modelguard.dev/catalog: keys}
data: {v1: s3://models/extraction/1, v2: s3://models/extraction/2}
";

/// A Deployment whose template uses something.
fn app(uses: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: extraction-api, namespace: prod}}\n\
         spec:\n  template:\n    metadata: {{annotations: {{modelguard.dev/uses: '{uses}'}}}}\n    spec: {{containers: []}}\n"
    )
}

fn world(app: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("apps")).unwrap();
    fs::write(dir.path().join("models.yaml"), MODELS).unwrap();
    fs::write(dir.path().join("apps/api.yaml"), app).unwrap();
    dir
}

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews").join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn modelguard(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelguard"));
    command.env_clear().args(args);
    command
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

// === serve --standalone ===

/// A server, until it is dropped.
struct Server {
    process: Child,
    client: kube::Client,
    _tls: TempDir,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = TempDir::new().unwrap();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(tls.path().join("tls.crt"), certified.cert.pem()).unwrap();
        fs::write(tls.path().join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
        let any = "--listen=127.0.0.1:0 --admin-listen=127.0.0.1:0 --log-format=json --shutdown-delay=0s";
        let mut command = modelguard(&["serve", "--standalone", dir.to_str().unwrap()]);
        command.args(any.split(' ')).arg("--tls-dir").arg(tls.path());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map(|line| line.unwrap());
        let address = log.by_ref().find_map(|line| {
            let line: Value = serde_json::from_str(&line).unwrap();
            (line["message"] == "serving").then(|| line["address"].as_str().unwrap().to_owned())
        });
        // What nobody reads would block the server one day.
        std::thread::spawn(move || log.for_each(drop));
        let url = format!("https://{}", address.expect("it serves")).parse().unwrap();
        let mut config = kube::Config::new(url);
        config.root_cert = Some(vec![certified.cert.der().to_vec()]);
        config.default_retry = false;
        Self { process, client: kube::Client::try_from(config).unwrap(), _tls: tls }
    }

    async fn post(&self, path: &str, review: &Value) -> Value {
        let request = Request::post(path).header("content-type", "application/json");
        let answer: Value = self.client.request(request.body(review.to_string().into()).unwrap()).await.unwrap();
        answer["response"].clone()
    }

    /// The code of the denial, with its message; `None` if the review is allowed.
    async fn judge(&self, mut review: Value) -> Option<(String, String)> {
        if review["request"]["kind"]["kind"] == "ConfigMap" {
            let answer = self.post("/mutate", &review).await;
            let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut review["request"]["object"], &patch).unwrap();
        }
        let answer = self.post("/validate", &review).await;
        if answer["allowed"] == true {
            return None;
        }
        let message = answer["status"]["message"].as_str().unwrap();
        Some((message[1..6].to_owned(), message.to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_removal_is_judged_by_the_manifests_as_they_are_now() {
    let dir = world(&app("extraction-models:v1"));
    let server = Server::start(dir.path());
    let removal = || recorded("config-map-remove");
    let (code, message) = server.judge(removal()).await.unwrap();
    assert_eq!(code, "MG101");
    assert!(
        message.contains("entry v1 is still used by the pod template of Deployment prod/extraction-api"),
        "{message}"
    );

    fs::write(dir.path().join("apps/api.yaml"), app("extraction-models:v2")).unwrap();
    assert_eq!(server.judge(removal()).await, None, "nobody holds v1 any more");

    let broken = dir.path().join("apps/broken.yaml");
    fs::write(&broken, "kind: Pod\napiVersion: [\n").unwrap();
    let (code, message) = server.judge(removal()).await.unwrap();
    assert_eq!(code, "MG501");
    assert!(message.contains(&format!("manifest {}: line 2, column ", broken.display())), "{message}");
    let mut addition = removal();
    let data =
        json!({"v1": "s3://models/extraction/1", "v2": "s3://models/extraction/2", "v3": "s3://models/extraction/3"});
    addition["request"]["object"]["data"] = data;
    assert_eq!(server.judge(addition).await, None, "an addition needs nobody's manifests");

    fs::remove_file(&broken).unwrap();
    fs::write(dir.path().join("apps/.hidden.yaml"), app("extraction-models:v1")).unwrap();
    assert_eq!(server.judge(removal()).await, None, "what begins with a dot is not read");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [{
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": "prod"},
        "spec": {"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "extraction-models", "key": "v1"}}}]}]},
    }]});
    fs::write(dir.path().join("pods.json"), list.to_string()).unwrap();
    assert_eq!(server.judge(removal()).await.unwrap().0, "MG101");
}

#[tokio::test]
async fn a_proof_that_an_object_carries_is_not_asked_for() {
    let dir = world(&app("extraction-models:v1"));
    let server = Server::start(dir.path());
    let mut review = recorded("config-map-remove");
    for object in ["object", "oldObject"] {
        let usage = r#"{"epoch":"standalone","idle":["v1"]}"#;
        review["request"][object]["metadata"]["annotations"]["modelguard.dev/usage"] = usage.into();
    }
    assert_eq!(server.judge(review).await.unwrap().0, "MG101");
}

#[tokio::test]
async fn a_reference_is_judged_by_the_manifests_as_they_are_now() {
    let dir = world("");
    let server = Server::start(dir.path());
    assert_eq!(server.judge(recorded("deployment-create")).await, None);
    fs::write(dir.path().join("models.yaml"), MODELS.replace("v1: ", "v0: ")).unwrap();
    assert_eq!(server.judge(recorded("deployment-create")).await.unwrap().0, "MG201");
    fs::remove_file(dir.path().join("models.yaml")).unwrap();
    assert_eq!(server.judge(recorded("deployment-create")).await.unwrap().0, "MG202");
}

#[tokio::test]
async fn the_last_server_stays_by_the_manifests_as_they_are_now() {
    let dir = world(&app("extraction-models:v1"));
    let serves = |name: &str| {
        let manifest = app("").replace("extraction-api", name).replace("/uses: ''", "/serves: 'extraction-models:*'");
        fs::write(dir.path().join(format!("{name}.yaml")), manifest).unwrap();
    };
    serves("server-a");
    let server = Server::start(dir.path());
    let mut deletion = recorded("deployment-create");
    let request = &mut deletion["request"];
    (request["operation"], request["name"]) = ("DELETE".into(), "server-a".into());
    request["oldObject"] = request["object"].take();
    request["oldObject"]["status"] = json!({"readyReplicas": 1});
    let annotations = json!({"modelguard.dev/serves": "extraction-models:*"});
    request["oldObject"]["spec"]["template"]["metadata"]["annotations"] = annotations;
    let (code, message) = server.judge(deletion.clone()).await.unwrap();
    assert_eq!(code, "MG301");
    assert!(
        message.contains("entry v1 of model ConfigMap prod/extraction-models, which is still used by"),
        "{message}"
    );
    serves("server-b");
    assert_eq!(server.judge(deletion.clone()).await, None);
    fs::remove_file(dir.path().join("server-b.yaml")).unwrap();
    assert_eq!(server.judge(deletion.clone()).await.unwrap().0, "MG301");
    fs::write(dir.path().join("apps/api.yaml"), app("")).unwrap();
    assert_eq!(server.judge(deletion).await, None);
}

#[test]
fn manifests_that_cannot_be_read_at_the_start_end_it_with_2() {
    let dir = world("metadata:\n  name: a\n");
    let output = modelguard(&["serve", "--standalone", dir.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "modelguard: manifest {}: line 1, column 1: expected a Kubernetes object with apiVersion and kind (found none)",
        dir.path().join("apps/api.yaml").display()
    );
    assert!(stderr(&output).ends_with(&format!("{expected}\n")), "{}", stderr(&output));
}

// === review ===

/// Runs `review` on a file with this text.
fn review(text: &str, world: &Path, args: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("review.json");
    fs::write(&file, text).unwrap();
    modelguard(&["review", file.to_str().unwrap(), "--world", world.to_str().unwrap()]).args(args).output().unwrap()
}

#[test]
fn a_review_ends_with_0_if_it_is_allowed_and_with_1_if_not() {
    let removal = recorded("config-map-remove").to_string();
    let output = review(&removal, world(&app("extraction-models:v1")).path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stdout(&output)
            .starts_with("denied MG101  UPDATE ConfigMap prod/extraction-models\n  [MG101] extraction-models: ")
    );

    let output = review(&removal, world(&app("extraction-models:v2")).path(), &[]);
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), "allowed  UPDATE ConfigMap prod/extraction-models\n")
    );
}

#[test]
fn a_review_counts_the_usage_that_its_old_object_carries() {
    for (usage, world_uses, code) in [
        (r#"{"epoch":"5f0c2a","idle":["v1"]}"#, "extraction-models:v1", 0),
        (r#"{"epoch":"5f0c2a","settling":{"v1":"k3x9"}}"#, "extraction-models:v2", 1),
    ] {
        let mut removal = recorded("config-map-remove");
        removal["request"]["oldObject"]["metadata"]["annotations"]["modelguard.dev/usage"] = usage.into();
        let output = review(&removal.to_string(), world(&app(world_uses)).path(), &[]);
        assert_eq!(output.status.code(), Some(code), "{usage}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn a_review_is_answered_for_programs_too() {
    let removal = recorded("config-map-remove").to_string();
    let world = world(&app("extraction-models:v1"));
    let output = review(&removal, world.path(), &["-o", "json"]);
    let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((&answer["kind"], &answer["response"]["status"]["code"]), (&"AdmissionReview".into(), &403.into()));
    let output = review(&removal, world.path(), &["-o", "yaml"]);
    assert!(stdout(&output).contains("\n  allowed: false\n"), "{}", stdout(&output));
}

#[test]
fn what_is_no_review_ends_with_2_and_one_line() {
    let world = world(&app("extraction-models:v1"));
    let mut stranger = recorded("config-map-remove");
    stranger["request"]["kind"]["kind"] = "Secret".into();
    for (text, expected) in [
        ("{", "review.json is not JSON: "),
        ("{}", "expected admission.k8s.io/v1 AdmissionReview"),
        (&stranger.to_string(), "UPDATE of Secret"),
    ] {
        let output = review(text, world.path(), &[]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{text}");
        assert!(stderr(&output).contains(expected) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
    }
    let output = review("{}", Path::new("/nonexistent"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("modelguard: cannot read /nonexistent: "), "{}", stderr(&output));
}

// === demo ===

#[test]
fn the_demo_shows_the_outage_and_then_the_three_steps() {
    let started = Instant::now();
    let output = modelguard(&["demo", "-o", "json"]).output().unwrap();
    println!("the demo took {:?}", started.elapsed());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys = ["scene", "step", "operation", "object", "allowed", "code", "message", "dangling"];
    for line in &lines {
        let found: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, keys.into(), "{line}");
    }
    let (without, with): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["scene"] == "without");
    assert!(without.iter().all(|line| line["allowed"] == true));
    assert!(without.iter().any(|line| line["dangling"] == 7), "the incident's 70 %: {without:?}");
    assert!(without.last().unwrap()["dangling"].as_u64().unwrap() > 0);

    let told: Vec<_> = with.iter().map(|line| (line["step"].as_u64().unwrap(), line["code"].as_str())).collect();
    assert_eq!(told, [(3, Some("MG101")), (1, None), (2, None), (3, None)]);
    assert!(with.iter().all(|line| line["dangling"] == 0 && line["scene"] == "with"));
    assert!(with.iter().all(|line| line["allowed"] == line["code"].is_null()));
    let message = with[0]["message"].as_str().unwrap();
    assert!(message.contains("extraction@v2 is still used by 10 pods of Deployment prod/extraction-api"), "{message}");
}

#[test]
fn the_demo_for_people_fits_a_terminal_and_has_no_colour_in_a_pipe() {
    let output = modelguard(&["demo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for expected in
        ["WITHOUT MODELGUARD", "7 of 10 pods reference a version that is not there", "denied MG101", "Step 3, remove"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
