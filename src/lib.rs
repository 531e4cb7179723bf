//! modelguard: a Kubernetes admission webhook that makes it impossible to pull a model version out from under
//! running app pods.
//!
//! # The map
//!
//! ```text
//! kube-apiserver ──HTTPS──▶ admission ── Request ──▶ policy::decide ── Decision ──▶ admission ──▶ answer
//!                                           ▲ Facts (what policy::needs asked for)      └──▶ record ─▶ decision
//!                                        World  (trait: catalog, namespace, holders, lift)     log, metrics,
//!                                           │                                               audit annotations
//!                              ┌────────────┴─────────────┐
//!          world/cluster (kube: quorum reads,   world/standalone (a folder of manifests,
//!          CAS writes, watches ─▶ index)        read for each fact; no kube)
//!                              │
//!                          controller (Lease): settles entries, keeps revisions, watches what proofs rest on; Events
//! ```
//! The direction is law: transport → domain ← Kubernetes.
//!
//! | room | modules | may use |
//! |---|---|---|
//! | domain | [`names`] [`catalog`] [`object`] [`manifest`] [`reference`](mod@reference) [`holder`] [`usage`] [`revision`] [`history`] [`retention`] [`healing`] [`policy`] [`sharing`] [`arming`] [`guard`] [`audit`] [`status`] [`event`] | data in, data out: no I/O, no clock; time is an argument |
//! | index | [`index`] | the same, but for `index/{resource,watch,live}`, which feed it |
//! | Kubernetes | [`world`] [`controller`] | kube |
//! | folder | `world/standalone` | files, and neither kube nor a clock |
//! | transport | [`admission`] [`admin`] [`connections`] | axum, rustls |
//! | process | [`cli`] [`record`] [`metrics`] [`telemetry`] [`shutdown`] [`clock`] | everything |
//!
//! # Invariants
//!
//! 1. An entry that a holder references is in its catalog. The proof that it may go is carried by the model
//!    ConfigMap itself ([`usage`]), and the compare-and-swap on that ConfigMap orders everything else.
//! 2. A reference takes its entry back to InUse *before* it is allowed; a removal is judged by the *old* object
//!    alone. Neither asks the [`index`], which only says who holds. (A folder of manifests, which nobody commits to
//!    meanwhile, is its own proof: [`policy::Proof`].)
//! 3. Unknown is not absent: what cannot be read counts as holding, and keeps the guard closed.
//! 4. The rules are pure ([`policy`]): equal request, equal facts, equal answer, however often it is asked.
//! 5. The data of a model ConfigMap is changed by its owners' requests only; modelguard's own writes touch
//!    annotations, conditional on the revision that they rest on.
//! 6. No request is cut off: there is an answer with a reason before the API server's deadline.
//! 7. An entry that is known to be used keeps a ready server: a server's departure is on the ConfigMap before it is
//!    allowed (`policy/server.rs`).
//!
//! The feature `unsound` breaks the first two, so that `tests/e2e/races.rs` can show that it would notice: a reference
//! lifts nothing, and the controller does not wait. The rules and the state machine are left as they are.

#[cfg(all(feature = "unsound", not(debug_assertions)))]
compile_error!("`unsound` is for the race test alone: never for what is released");

pub mod admin;
pub mod admission;
pub mod arming;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod connections;
pub mod controller;
pub mod event;
pub mod guard;
pub mod healing;
pub mod history;
pub mod holder;
pub mod index;
pub mod manifest;
pub mod metrics;
pub mod names;
pub mod object;
pub mod policy;
pub mod record;
pub mod reference;
pub mod retention;
pub mod revision;
pub mod sharing;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod usage;
pub mod world;
