//! The session password.

use zk_proto::SessionId;

/// Length of a session password.
pub const PASSWORD_BYTES: usize = 16;

/// The password of a session. Every server of an ensemble computes the same one, so that sessions can move, and
/// so can everybody who knows the id: it guards against accidents and is no secret.
///
/// It is what `java.util.Random`, seeded with the id and a constant, gives as its first 16 bytes.
pub fn password(session: SessionId) -> [u8; PASSWORD_BYTES] {
    const SUPER_SECRET: i64 = 0xB341_5C00;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;

    let mut state = ((session.0 ^ SUPER_SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut bytes = [0; PASSWORD_BYTES];
    for word in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// Whether `given` is the session's password. Takes the same time for every wrong password of the right length.
pub fn password_matches(session: SessionId, given: &[u8]) -> bool {
    let expected = password(session);
    let difference = expected.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == expected.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handshakes recorded from Apache ZooKeeper 3.9.3, standalone and ensemble.
    const RECORDED: [(i64, u128); 12] = [
        (0x0100_000e_a755_0000, 0xe145_7810_5a18_ff67_2706_779e_33f1_ca7b),
        (0x0100_000e_a755_0001, 0xf466_7210_fa63_deac_1c49_dec9_077a_df48),
        (0x0100_000e_a755_0003, 0xce24_7e10_bacc_1f23_32c3_0f73_6068_b6ae),
        (0x0100_000e_a755_0064, 0x5731_2d0e_d6a2_384f_f22d_cd92_de63_d097),
        (0x0100_000e_a755_0065, 0x6a52_270e_76ee_1794_e870_34be_b2ec_e464),
        (0x0100_000e_a755_0066, 0x31ef_380e_960b_7ac5_08a8_fe3b_3752_a7fd),
        (0x0100_000e_a755_0067, 0x4410_330e_3657_590a_fdea_6567_0adb_bbca),
        (0x0100_000e_a755_0068, 0xa3b5_150e_56d1_b562_c739_6a40_2d87_22cc),
        (0x0100_000e_a755_006a, 0x7d73_210e_163a_f7d8_ddb3_9be9_8575_f931),
        (0x0100_000e_a755_0002, 0xbb03_8410_1a81_40de_3d80_a847_8cdf_a1e1),
        (0x0100_0013_3a36_0000, 0x4899_948f_3525_f12e_6641_f78e_06c5_b257),
        (0x0200_0010_b27a_0000, 0xd482_17c3_d15d_9270_d283_48d1_0215_8979),
    ];

    #[test]
    fn recorded_passwords() {
        for (id, expected) in RECORDED {
            let session = SessionId(id);
            assert_eq!(password(session), expected.to_be_bytes(), "{session}");
            assert!(password_matches(session, &expected.to_be_bytes()));
        }
    }

    #[test]
    fn anything_else_does_not_match() {
        let session = SessionId(RECORDED[0].0);
        let right = password(session);
        assert!(!password_matches(session, &[]));
        assert!(!password_matches(session, &right[..15]));
        assert!(!password_matches(session, &[&right[..], &[0]].concat()));
        assert!(!password_matches(SessionId(session.0 + 1), &right));
        for bit in 0..128 {
            let mut wrong = right;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!password_matches(session, &wrong));
        }
    }
}
