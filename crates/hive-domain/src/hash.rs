//! A small stable hash for decisions that every replica must take alike.
//!
//! Not `std`'s hasher: that one may change with the compiler, and two versions of a daemon run
//! side by side during an upgrade. Not for anything an attacker gains by guessing.

/// FNV-1a over the parts, each closed by a byte that no name and no UTF-8 text holds, then the
/// splitmix64 finaliser, because plain FNV leaves neighbouring inputs with neighbouring hashes.
pub(crate) fn of(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
    }

    #[test]
    fn the_hash_of_a_text_never_changes() {
        // Replicas of two versions must agree: a change here moves every group to another owner.
        assert_eq!(of(&[b"orders", b"a"]), 0x5465_e4cc_1d12_b4c7);
    }
}
