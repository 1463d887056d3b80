//! Chance without a generator: a number is mixed, so a run needs no shared state and no seed that anyone could forget.

/// SplitMix64's finisher: every bit of the number moves every bit of the result.
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether what happens with that probability does so this time.
#[allow(clippy::cast_precision_loss, reason = "a probability needs no more than 53 bits")]
pub fn happens(probability: f64, time: u64) -> bool {
    ((mixed(time) >> 11) as f64) < probability * ((1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::happens;

    #[test]
    fn as_often_as_was_asked() {
        for (probability, least, most) in [(0.0, 0, 0), (0.3, 2_850, 3_150), (1.0, 10_000, 10_000)] {
            let times = (0..10_000).filter(|time| happens(probability, *time)).count();
            assert!((least..=most).contains(&times), "{probability}: {times} of 10,000");
        }
    }
}
