//! CPU time in the place of wall time: what others do on the machine is not in it.

use criterion::Bencher;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Measures the CPU time of `work`.
pub(crate) fn measure<T>(bencher: &mut Bencher<'_>, mut work: impl FnMut() -> T) {
    bencher.iter_custom(|times| {
        let started = cpu_time();
        for _ in 0..times {
            black_box(work());
        }
        cpu_time() - started
    });
}
