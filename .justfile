# The everyday recipes; `just` lists them, `.ci/run` runs all checks from nothing.

_default:
    @just --list --unsorted

# Format everything
format:
    cargo fmt

# Lints and docs, without a warning
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Every test, those against a real control plane included
test *args:
    cargo test --locked {{args}}

# The end-to-end tests alone; `just e2e incident` runs those with that name
e2e *args:
    cargo test --locked --test e2e -- {{args}}

# Removals against references on a real API server, many times the rounds of `just test`: some seven minutes, and twice as
# long among kills and restarts
races rounds="2000":
    MODELGUARD_RACE_ROUNDS={{rounds}} cargo test --locked --test e2e -- races::no_holder --nocapture
    MODELGUARD_RACE_ROUNDS={{rounds}} cargo test --locked --test e2e -- races::among --nocapture

# The model checks, and how many states each has gone through
model:
    cargo test --locked --test protocol -- --nocapture

# Write the generated files anew
generate:
    GENERATE=1 cargo test --locked --test cli

# What the program exists for, measured
bench:
    cargo bench --locked

# A start among 10,000 real pods, and memory while 10,000 more come and go: ten to twenty minutes
startup:
    cargo build --locked --release --bin modelguard
    cargo run --locked --example startup -- target/release/modelguard

# A control plane to play with, modelguard installed
playground:
    tests/controlplane/playground.sh
