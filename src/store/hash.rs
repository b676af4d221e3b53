//! Hashing of keys that carry their hash already.

use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys write one well mixed `u64` as their hash: it is taken as it is.
///
/// Nobody outside can choose keys that collide, since those hashes are made under a secret of the process or the log.
pub(super) type Prehashed<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<AsWritten>>;

/// A hasher that returns the last `u64` written to it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AsWritten(u64);

impl Hasher for AsWritten {
    fn write(&mut self, bytes: &[u8]) {
        // Not on the path of any key here; correct for all, if slow.
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
