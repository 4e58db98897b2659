//! A compact ordered set of numbers.

/// Numbers per run. A run is moved by half of it on average for an insertion at a random place: 1 KiB.
const RUN_MAX: usize = 512;

/// An ordered set of `u32` that takes little more than 4 bytes per element at any size: one sorted vector, and
/// a sequence of such runs once there are many elements. Search is logarithmic; insertion and removal move at
/// most one run; [`SortedSet::retain`] and iteration are linear.
#[derive(Debug, Default)]
pub(super) struct SortedSet {
    repr: Repr,
}

#[derive(Debug)]
enum Repr {
    Run(Vec<u32>),
    Runs(Box<Runs>),
}

/// More than one run, none of them empty.
#[derive(Debug)]
struct Runs {
    runs: Vec<Vec<u32>>,
    len: usize,
}

impl Default for Repr {
    fn default() -> Self {
        Repr::Run(Vec::new())
    }
}

impl SortedSet {
    /// The set of two different elements: the least for which a set is worth its memory.
    pub(super) fn pair(a: u32, b: u32) -> Self {
        SortedSet { repr: Repr::Run(vec![a.min(b), a.max(b)]) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.repr {
            Repr::Run(run) => run.len(),
            Repr::Runs(runs) => runs.len,
        }
    }

    /// The smallest element that is not below `bound`.
    pub(super) fn first_from(&self, bound: u32) -> Option<u32> {
        match &self.repr {
            Repr::Run(run) => run.get(run.partition_point(|&v| v < bound)).copied(),
            Repr::Runs(runs) => {
                let run = runs.runs.get(runs.runs.partition_point(|run| run[run.len() - 1] < bound))?;
                run.get(run.partition_point(|&v| v < bound)).copied()
            }
        }
    }

    /// Adds an element; false if it was there.
    pub(super) fn insert(&mut self, value: u32) -> bool {
        match &mut self.repr {
            Repr::Run(run) => {
                let Err(at) = run.binary_search(&value) else { return false };
                if run.len() < RUN_MAX {
                    insert_tight(run, at, value);
                    return true;
                }
                let runs = vec![std::mem::take(run)];
                self.repr = Repr::Runs(Box::new(Runs { runs, len: RUN_MAX }));
                self.insert(value)
            }
            Repr::Runs(runs) => runs.insert(value),
        }
    }

    /// Takes an element out; false if it was not there.
    pub(super) fn remove(&mut self, value: u32) -> bool {
        let found = match &mut self.repr {
            Repr::Run(run) => match run.binary_search(&value) {
                Ok(at) => {
                    run.remove(at);
                    if run.len() < run.capacity() / 4 {
                        run.shrink_to(run.len() * 2);
                    }
                    true
                }
                Err(_) => false,
            },
            Repr::Runs(runs) => runs.remove(value),
        };
        if found {
            self.repack_if_sparse();
        }
        found
    }

    /// Shows every element, ascending, to `keep`, which may replace it by another one that leaves the order
    /// intact, and drops those for which it answers false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut u32) -> bool) {
        match &mut self.repr {
            Repr::Run(run) => {
                run.retain_mut(keep);
                if run.len() < run.capacity() / 4 {
                    run.shrink_to_fit();
                }
            }
            Repr::Runs(runs) => {
                runs.runs.iter_mut().for_each(|run| run.retain_mut(&mut keep));
                runs.runs.retain(|run| !run.is_empty());
                runs.len = runs.runs.iter().map(Vec::len).sum();
            }
        }
        self.repack_if_sparse();
    }

    /// All elements, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let runs = match &self.repr {
            Repr::Run(run) => std::slice::from_ref(run),
            Repr::Runs(runs) => &runs.runs,
        };
        runs.iter().flatten().copied()
    }

    /// Keeps runs at least a quarter full on average, so that memory follows the number of elements down.
    fn repack_if_sparse(&mut self) {
        let Repr::Runs(runs) = &mut self.repr else { return };
        if runs.len <= RUN_MAX / 2 {
            self.repr = Repr::Run(runs.runs.concat());
        } else if runs.runs.len() * RUN_MAX > runs.len * 4 {
            let all = runs.runs.concat();
            runs.runs = all.chunks(RUN_MAX).map(<[u32]>::to_vec).collect();
        }
    }
}

impl Runs {
    /// The run in which `value` is, or would have to be.
    fn run_of(&self, value: u32) -> usize {
        self.runs.partition_point(|run| run[0] <= value).saturating_sub(1)
    }

    fn insert(&mut self, value: u32) -> bool {
        let at_run = self.run_of(value);
        let is_last = at_run + 1 == self.runs.len();
        let run = &mut self.runs[at_run];
        let Err(at) = run.binary_search(&value) else { return false };
        if run.len() < RUN_MAX {
            insert_tight(run, at, value);
        } else if at == RUN_MAX && is_last {
            // Ascending insertion leaves full runs behind, not half full ones.
            self.runs.push(vec![value]);
        } else {
            let mut upper = run.split_off(RUN_MAX / 2);
            run.shrink_to_fit();
            if at <= run.len() {
                insert_tight(run, at, value);
            } else {
                insert_tight(&mut upper, at - RUN_MAX / 2, value);
            }
            self.runs.insert(at_run + 1, upper);
        }
        self.len += 1;
        true
    }

    fn remove(&mut self, value: u32) -> bool {
        let at_run = self.run_of(value);
        let Ok(at) = self.runs[at_run].binary_search(&value) else { return false };
        self.runs[at_run].remove(at);
        if self.runs[at_run].is_empty() {
            self.runs.remove(at_run);
        }
        self.len -= 1;
        true
    }
}

/// Inserts with a growth by half instead of doubling.
fn insert_tight(run: &mut Vec<u32>, at: usize, value: u32) {
    if run.len() == run.capacity() {
        run.reserve_exact((run.len() / 2).max(2));
    }
    run.insert(at, value);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(set: &SortedSet, model: &BTreeSet<u32>) {
        assert_eq!(set.len(), model.len());
        assert!(set.iter().eq(model.iter().copied()));
        if let Repr::Runs(runs) = &set.repr {
            assert!(runs.runs.iter().all(|run| !run.is_empty() && run.len() <= RUN_MAX));
            assert!(runs.runs.len() * RUN_MAX <= runs.len * 4, "{} runs of {}", runs.runs.len(), runs.len);
        }
    }

    #[test]
    fn agrees_with_btree_set() {
        for (seed, span) in [(1, 50), (2, 1_500), (3, 20_000), (4, u32::MAX)] {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut set, mut model) = (SortedSet::default(), BTreeSet::new());
            for round in 0..6 {
                let grow = round % 2 == 0;
                for _ in 0..8_000 {
                    let known = model.range(rng.u32(..span)..).next().copied();
                    match known {
                        Some(value) if !grow || rng.u8(..4) == 0 => {
                            assert_eq!(set.remove(value), model.remove(&value));
                        }
                        _ => {
                            let value = rng.u32(..span);
                            assert_eq!(set.insert(value), model.insert(value));
                        }
                    }
                    let bound = rng.u32(..span);
                    assert_eq!(set.first_from(bound), model.range(bound..).next().copied());
                    assert!(!set.remove(span) && !model.contains(&span));
                }
                check(&set, &model);
                let modulus = rng.u32(2..20);
                set.retain(|v| !v.is_multiple_of(modulus));
                model.retain(|v| !v.is_multiple_of(modulus));
                check(&set, &model);
            }
        }
    }

    #[test]
    fn ascending_and_descending_insertion() {
        let (mut up, mut down) = (SortedSet::default(), SortedSet::default());
        for value in 0..5_000 {
            assert!(up.insert(value) && !up.insert(value));
            assert!(down.insert(4_999 - value));
        }
        let model: BTreeSet<u32> = (0..5_000).collect();
        check(&up, &model);
        check(&down, &model);
        let Repr::Runs(runs) = &up.repr else { panic!("5000 elements in one run") };
        assert_eq!(runs.runs.len(), 5_000_usize.div_ceil(RUN_MAX));
    }
}
