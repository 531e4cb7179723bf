//! A real control plane, and modelguard in it, for the end-to-end tests and the playground.
//!
//! ```text
//! Assets ──▶ ControlPlane ──▶ Modelguard        the binaries ▸ their processes ▸ chart, certificates, replicas
//!               │    ▲
//!               │    └── Tool ──▶ Output        kubectl and helm, as people run them
//!               └── Namespace                   one (or more) for each test
//! Process, Dir ──▶ leftovers                    whatever must not outlive us
//! ```
//! Starting returns errors; what a test asserts panics, with everything that was said on both sides.

#![allow(dead_code, reason = "included by several programs, each of which needs a part")]

pub(crate) mod assets;
pub(crate) mod balancer;
pub(crate) mod builders;
pub(crate) mod client;
pub(crate) mod control_plane;
pub(crate) mod kubectl;
pub(crate) mod leftovers;
pub(crate) mod modelguard;
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod slow;
pub(crate) mod wait;
