//! Randomness as a parameter.

/// A source of random bytes. The only one: `clippy.toml` bans the direct calls.
pub trait Entropy: Send + Sync + std::fmt::Debug {
    /// Fills `bytes` with random ones. The system's source is cryptographically strong; a seeded one is not.
    fn fill(&self, bytes: &mut [u8]);

    /// A number, uniform in `[0, 1)`.
    fn unit(&self) -> f64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        // 53 bits are what an f64 holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let number = (u64::from_le_bytes(bytes) >> 11) as f64;
        number / 9_007_199_254_740_992.0
    }
}
