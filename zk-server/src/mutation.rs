//! Deliberate mistakes, so that the tests can show that they would notice them. Only with the feature `mutations`,
//! which no build of a server has; without it every question here is answered by a constant.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Half of the voters make a leader.
    HalfIsAQuorum,
    /// One acknowledgement too few commits.
    CommitTooEarly,
    /// The first transaction that a learner lacks is not sent to it.
    DiffWithGap,
    /// A new learner is not told what is proposed and not committed.
    ForgetOutstanding,
    /// NEWLEADER is acknowledged before the history is on the disk.
    AckNewLeaderEarly,
    /// The history of a synchronisation is not synced before the epoch file.
    EpochBeforeHistory,
    /// The content of epoch files is not synced.
    EpochFileNotSynced,
    /// One transaction more than asked for is truncated.
    TruncateTooFar,
    /// Answers leave when they are known.
    AnswersOutOfOrder,
    /// Snapshots have no sessions.
    SnapshotWithoutSessions,
}

impl Mutation {
    /// All mistakes.
    pub const ALL: [Mutation; 10] = [
        Mutation::HalfIsAQuorum,
        Mutation::CommitTooEarly,
        Mutation::DiffWithGap,
        Mutation::ForgetOutstanding,
        Mutation::AckNewLeaderEarly,
        Mutation::EpochBeforeHistory,
        Mutation::EpochFileNotSynced,
        Mutation::TruncateTooFar,
        Mutation::AnswersOutOfOrder,
        Mutation::SnapshotWithoutSessions,
    ];

    /// Whether this thread makes this mistake.
    #[cfg(feature = "mutations")]
    pub(crate) fn is_on(self) -> bool {
        ACTIVE.with(|active| active.get() == Some(self))
    }

    /// No.
    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes this mistake.
#[cfg(feature = "mutations")]
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.with(|active| active.set(mutation));
}
