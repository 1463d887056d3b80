//! How long to wait before a request is repeated.

use std::time::Duration;

use signalpost_core::Entropy;

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(5);

/// The pause after try number `tries` (from 1): doubling, with jitter, never shorter than what the server asked for.
pub fn pause(tries: u32, asked: Option<Duration>, entropy: &dyn Entropy) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX)).min(MOST);
    let jittered = doubled.mul_f64(0.5 + 0.5 * entropy.unit());
    // Clients that were told the same time come back spread out.
    jittered.max(asked.map_or(Duration::ZERO, |asked| asked + jittered / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Always(u8);

    impl Entropy for Always {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_honour_retry_after() {
        let pauses: Vec<_> = (1..=7).map(|tries| pause(tries, None, &Always(0)).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2500, 2500]);
        assert_eq!(pause(u32::MAX, None, &Always(0)), MOST / 2);
        assert!(pause(1, None, &Always(0xff)) > Duration::from_millis(199));
        assert!(pause(1, Some(Duration::from_secs(9)), &Always(0)) >= Duration::from_secs(9));
    }
}
