//! Mutation of seeds without coverage feedback: blind, but deterministic and everywhere available.

use fastrand::Rng;

/// Longest input made.
pub const INPUT_BYTES_MAX: usize = 1 << 16;

/// Integers at the edges of what lengths, counts and codes may be.
const EDGES: [i32; 14] =
    [i32::MIN, i32::MIN + 1, -12, -2, -1, 0, 1, 4, 0xff, 0x7fff, 0xf_ffff, 0x10_0000, i32::MAX - 1, i32::MAX];

/// A mutation of one of the `seeds`, or now and then random bytes. The same generator state gives the same
/// input.
pub fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = match rng.usize(..100) {
        0 => Vec::new(),
        1 => (0..rng.usize(..512)).map(|_| rng.u8(..)).collect(),
        _ => pick(seeds, rng).to_vec(),
    };
    for _ in 0..rng.usize(1..6) {
        mutate_once(&mut input, seeds, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn pick<'a>(seeds: &'a [Vec<u8>], rng: &mut Rng) -> &'a [u8] {
    if seeds.is_empty() { &[] } else { &seeds[rng.usize(..seeds.len())] }
}

fn mutate_once(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    // Where something is put in: any position, the end included.
    let at = rng.usize(..=input.len());
    if input.is_empty() || rng.u8(..8) == 0 {
        grow(input, at, seeds, rng);
        return;
    }
    let byte = rng.usize(..input.len());
    match rng.u8(..7) {
        0 => input[byte] ^= 1 << rng.u8(..8),
        1 => input[byte] = rng.u8(..),
        2 => input[byte] = input[byte].wrapping_add(rng.u8(..5)).wrapping_sub(2),
        3 => overwrite(input, byte, &EDGES[rng.usize(..EDGES.len())].to_be_bytes()),
        4 => overwrite(input, byte, &rng.i32(-64..64).to_be_bytes()),
        5 => input.truncate(at),
        _ => {
            let end = rng.usize(at..=input.len());
            input.drain(at..end);
        }
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in input[at..].iter_mut().zip(bytes) {
        *to = *from;
    }
}

fn grow(input: &mut Vec<u8>, at: usize, seeds: &[Vec<u8>], rng: &mut Rng) {
    let piece: Vec<u8> = match rng.u8(..4) {
        0 => (0..rng.usize(1..16)).map(|_| rng.u8(..)).collect(),
        1 => vec![rng.u8(..); rng.usize(1..64)],
        // A piece of another seed, or of this input once more.
        2 => slice(pick(seeds, rng), rng).to_vec(),
        _ => slice(input, rng).repeat(rng.usize(1..8)),
    };
    input.splice(at..at, piece);
}

fn slice<'a>(bytes: &'a [u8], rng: &mut Rng) -> &'a [u8] {
    let start = rng.usize(..=bytes.len());
    &bytes[start..rng.usize(start..=bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = vec![b"/zookeeper".to_vec(), vec![0, 0, 0, 3, 1, 2, 3]];
        let inputs = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..200).map(|_| mutated(&seeds, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn no_seeds_and_long_seeds_are_fine() {
        let mut rng = Rng::with_seed(3);
        for _ in 0..500 {
            mutated(&[], &mut rng);
            assert!(mutated(&[vec![7; 2 * INPUT_BYTES_MAX]], &mut rng).len() <= INPUT_BYTES_MAX);
        }
    }
}
