//! The limits port's own suite on the in-process implementation.

use std::sync::Arc;

use signalpost_limits::{Limits, conformance, local::LocalLimits};
use signalpost_runtime::{SystemClock, SystemEntropy};

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let world = conformance::World { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) };
    // Who shares a process shares its limits.
    let limits = Arc::new(LocalLimits::new(Arc::clone(&world.clock)));
    let factory = async || Arc::clone(&limits) as Arc<dyn Limits>;
    conformance::exercise(factory, &world).await;
}
