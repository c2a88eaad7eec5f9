//! The block cipher Speck 128/256: 34 short rounds over two words of 64 bits, each of which can be
//! computed by somebody else.

/// Rounds from plain to cipher text.
pub(crate) const ROUNDS: usize = 34;

/// What the rounds need of a key.
pub(crate) struct Keys([u64; ROUNDS]);

impl Keys {
    /// The key is given from its highest word to its lowest.
    pub(crate) fn new([l2, l1, l0, k0]: [u64; 4]) -> Self {
        let mut keys = [k0; ROUNDS];
        let mut l = [l0, l1, l2];
        for round in 0..ROUNDS - 1 {
            let mut pair = [l[round % 3], keys[round]];
            mix(&mut pair, round as u64);
            [l[round % 3], keys[round + 1]] = pair;
        }
        Self(keys)
    }

    /// Some of the rounds of one block of two words.
    pub(crate) fn encrypt(&self, rounds: std::ops::Range<usize>, block: &mut [u64; 2]) {
        for &key in &self.0[rounds] {
            mix(block, key);
        }
    }

    /// All rounds, backwards.
    pub(crate) fn decrypt(&self, [x, y]: &mut [u64; 2]) {
        for key in self.0.iter().rev() {
            *y = (*y ^ *x).rotate_right(3);
            *x = (*x ^ key).wrapping_sub(*y).rotate_left(8);
        }
    }
}

/// One round, which also makes the next round's key.
fn mix([x, y]: &mut [u64; 2], key: u64) {
    *x = x.rotate_right(8).wrapping_add(*y) ^ key;
    *y = y.rotate_left(3) ^ *x;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the cipher's authors.
    #[test]
    fn the_published_test_vector() {
        let keys = Keys::new([
            0x1f1e1d1c1b1a1918,
            0x1716151413121110,
            0x0f0e0d0c0b0a0908,
            0x0706050403020100,
        ]);
        let plain = [0x65736f6874206e49, 0x202e72656e6f6f70];
        let mut block = plain;
        keys.encrypt(0..10, &mut block);
        keys.encrypt(10..ROUNDS, &mut block);
        assert_eq!(block, [0x4109010405c0f53e, 0x4eeeb48d9c188f43]);
        keys.decrypt(&mut block);
        assert_eq!(block, plain);
    }
}
