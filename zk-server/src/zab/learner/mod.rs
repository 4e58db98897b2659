//! A follower or observer of a leader.
