//! Which content is in use, at 16 bytes a digest.

use crate::oci::Digest;

/// The first half of a sha256: two digests that share it would be kept together, and nothing worse.
pub(super) type Mark = u128;

pub(super) fn mark(digest: &Digest) -> Mark {
    digest
        .bytes()
        .iter()
        .take(16)
        .fold(0, |mark, byte| mark << 8 | Mark::from(*byte))
}

/// A set of digests: a sorted list, and what came since it was sorted.
#[derive(Default)]
pub(super) struct Marks {
    sorted: Vec<Mark>,
    fresh: Vec<Mark>,
}

/// Fewer than these are looked through one by one.
const FRESH: usize = 64;

impl Marks {
    pub(super) fn insert(&mut self, digest: &Digest) {
        self.extend([mark(digest)]);
    }

    pub(super) fn extend(&mut self, marks: impl IntoIterator<Item = Mark>) {
        for mark in marks {
            self.fresh.push(mark);
            // Sorting seldom enough costs each mark a few moves in all.
            if self.fresh.len() > FRESH.max(self.sorted.len() / 2) {
                self.sort();
            }
        }
    }

    fn sort(&mut self) {
        self.sorted.append(&mut self.fresh);
        self.sorted.sort_unstable();
        self.sorted.dedup();
    }

    pub(super) fn contains(&mut self, digest: &Digest) -> bool {
        if self.fresh.len() > FRESH {
            self.sort();
        }
        let mark = mark(digest);
        self.sorted.binary_search(&mark).is_ok() || self.fresh.contains(&mark)
    }

    /// Everything in it, some of it perhaps twice.
    pub(super) fn into_marks(self) -> impl Iterator<Item = Mark> {
        self.sorted.into_iter().chain(self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn holds_what_was_put_in_and_nothing_else() {
        let digest = |n: u32| Algorithm::Sha256.digest(&n.to_be_bytes());
        let mut marks = Marks::default();
        for n in 0..5000 {
            marks.insert(&digest(n % 1000 * 2));
            let seen = n.min(999) * 2;
            assert!(marks.contains(&digest(seen)) && !marks.contains(&digest(seen + 1)));
        }
        let mut all: Vec<_> = marks.into_marks().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }
}
