//! Create flags.

/// Longest time to live: 40 bits of milliseconds.
pub const MAX_TTL_MS: i64 = 0xff_ffff_ffff;

/// What kind of node a create makes, apart from the sequential suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateKind {
    /// Lives until it is deleted.
    Persistent,
    /// Lives as long as its session; cannot have children.
    Ephemeral,
    /// Deleted by the server some time after its last child is gone.
    Container,
    /// Deleted by the server when it has no children and was not modified for its time to live.
    Ttl,
}

/// The seven create modes, with their wire flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum CreateMode {
    /// Persistent.
    Persistent = 0,
    /// Ephemeral.
    Ephemeral = 1,
    /// Persistent with a sequence number appended to the name.
    PersistentSequential = 2,
    /// Ephemeral with a sequence number appended to the name.
    EphemeralSequential = 3,
    /// Container.
    Container = 4,
    /// Persistent with a time to live.
    PersistentWithTtl = 5,
    /// Persistent with a time to live and a sequence number.
    PersistentSequentialWithTtl = 6,
}

/// Flags that are none of the seven modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown create flags {0}")]
pub struct UnknownFlags(pub i32);

impl TryFrom<i32> for CreateMode {
    type Error = UnknownFlags;

    fn try_from(flags: i32) -> Result<Self, UnknownFlags> {
        Ok(match flags {
            0 => CreateMode::Persistent,
            1 => CreateMode::Ephemeral,
            2 => CreateMode::PersistentSequential,
            3 => CreateMode::EphemeralSequential,
            4 => CreateMode::Container,
            5 => CreateMode::PersistentWithTtl,
            6 => CreateMode::PersistentSequentialWithTtl,
            _ => return Err(UnknownFlags(flags)),
        })
    }
}

impl CreateMode {
    /// The wire value.
    pub fn flags(self) -> i32 {
        self as i32
    }

    /// Whether the server appends the parent's create counter to the name.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            CreateMode::PersistentSequential
                | CreateMode::EphemeralSequential
                | CreateMode::PersistentSequentialWithTtl
        )
    }

    /// The kind of node.
    pub fn kind(self) -> CreateKind {
        match self {
            CreateMode::Persistent | CreateMode::PersistentSequential => CreateKind::Persistent,
            CreateMode::Ephemeral | CreateMode::EphemeralSequential => CreateKind::Ephemeral,
            CreateMode::Container => CreateKind::Container,
            CreateMode::PersistentWithTtl | CreateMode::PersistentSequentialWithTtl => CreateKind::Ttl,
        }
    }
}
