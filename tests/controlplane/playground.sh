#!/usr/bin/env bash
# Starts a real control plane with this checkout's modelguard in it, for people and for recordings: prints
# `export KUBECONFIG=…` and then `ready` on stdout, and takes everything down on Ctrl-C or SIGTERM.
# MODELGUARD_SETTLE sets Δ (default 60s).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo build --release --bin modelguard >&2
cargo build --example playground >&2
target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
# Replaced by it, so that signals reach it.
exec "$target/debug/examples/playground" "$target/release/modelguard"
