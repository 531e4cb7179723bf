//! The command line as people meet it: help, exit codes, and what is said when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_modelguard");

fn modelguard(args: &[&str]) -> Output {
    run(Path::new(BINARY), args)
}

fn run(program: &Path, args: &[&str]) -> Output {
    // What the caller's environment says is not what is tested.
    Command::new(program).env_clear().env("HOME", "/nonexistent").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Compares with a committed file; writes it where `GENERATE` is set.
#[track_caller]
fn assert_generated(file: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    if std::env::var_os("GENERATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, committed, "{} has drifted; `just generate` writes it anew", path.display());
}

#[test]
fn the_help_is_the_committed_one() {
    for (args, file) in [
        (&["--help"][..], "help.txt"),
        (&["serve", "--help"], "help-serve.txt"),
        (&["status", "--help"], "help-status.txt"),
        (&["history", "--help"], "help-history.txt"),
        (&["diff", "--help"], "help-diff.txt"),
        (&["audit", "--help"], "help-audit.txt"),
        (&["demo", "--help"], "help-demo.txt"),
        (&["review", "--help"], "help-review.txt"),
        (&["rollback", "--help"], "help-rollback.txt"),
    ] {
        let output = modelguard(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_generated(file, std::str::from_utf8(&output.stdout).unwrap());
    }
}

#[test]
fn what_is_typed_wrongly_ends_with_2_and_says_what_was_expected() {
    for (args, expected) in [
        (&[][..], "Usage: modelguard <COMMAND>"),
        (&["guard"], "unrecognized subcommand 'guard'"),
        (&["serve", "--settle", "soon"], "expected a duration such as 60s or 1m30s"),
        (&["serve", "--settle=-5s"], "expected a duration that is not negative"),
        (&["serve", "--while-in-use", "enforce"], "expected deny, wait, defer, warn or audit"),
        (&["serve", "--listen", "somewhere"], "invalid socket address"),
        (&["serve", "--log-format", "xml"], "[possible values: json, text]"),
        (&["serve", "--standalone", "a", "--kubeconfig", "b"], "cannot be used with '--kubeconfig <FILE>'"),
        (&["demo", "-o", "xml"], "[possible values: table, json, yaml]"),
        (&["review", "review.json"], "--world <DIR>"),
        (&["rollback", "models", "--to", "latest"], "expected `prior` or the number of a revision"),
        (&["rollback", "models", "--with", "api"], "expected deployment/NAME or rollout/NAME"),
        (&["audit", "prod"], "unexpected argument 'prod'"),
        (&["history"], "<CONFIGMAP>"),
        (&["diff", "models", "--from", "latest"], "expected `prior` or the number of a revision"),
        (&["status", "a", "b"], "unexpected argument 'b'"),
        (&["status", "models", "-A"], "'[CONFIGMAP]' cannot be used with '--all-namespaces'"),
        (&["status", "-n", "prod", "-A"], "cannot be used with"),
    ] {
        let output = modelguard(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_environment_that_does_not_allow_it_ends_with_2_and_one_line() {
    for command in [&["serve"][..], &["status"], &["history", "models"], &["diff", "models"], &["audit"]] {
        let args = [command, &["--kubeconfig", "/nonexistent/kubeconfig"]].concat();
        let output = modelguard(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(text.starts_with("modelguard: read /nonexistent/kubeconfig: "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// kubectl runs what is called `kubectl-modelguard` on the PATH.
#[test]
fn as_a_plugin_of_kubectl_it_calls_itself_what_was_typed() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-modelguard");
    symlink(BINARY, &plugin).unwrap();
    let help = run(&plugin, &["status", "--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("Usage: kubectl modelguard status [OPTIONS] [CONFIGMAP]"));
    let typo = run(&plugin, &["state"]);
    assert!(stderr(&typo).contains("Usage: kubectl modelguard <COMMAND>"), "{}", stderr(&typo));
    let failed = run(&plugin, &["status", "--kubeconfig", "/nonexistent/kubeconfig"]);
    assert!(stderr(&failed).starts_with("kubectl modelguard: read /nonexistent"), "{}", stderr(&failed));
}
