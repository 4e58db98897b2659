//! The leader of an epoch.
