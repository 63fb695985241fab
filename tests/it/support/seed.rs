//! Randomness that can be repeated: one printed seed a test, from `REGISTRY_SEED` or from the system.

use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64. Small, fast, and the same on every machine, which is what a printed seed is for.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for part `n`, so that threads do not depend on each other's order.
    pub(crate) fn fork(&mut self, n: u64) -> Self {
        let seed = self.next() ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..end`; 0 for an empty range.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// A number in `0..end` for indices and lengths.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a usize")
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// The seed of this run: `REGISTRY_SEED` or a random one; printed either way (cargo shows it when the test fails).
pub(crate) fn seed(test: &str) -> u64 {
    let seed = match std::env::var("REGISTRY_SEED") {
        Ok(text) => text
            .trim()
            .parse()
            .expect("REGISTRY_SEED is a decimal number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    eprintln!("{test}: REGISTRY_SEED={seed}");
    seed
}
