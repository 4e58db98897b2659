//! Traps: where servers that speak this protocol have gone wrong. One test or more for each that a standalone
//! server can fall into; the numbers only tell them apart.
//!
//! The gaps: 6, 41 and 48 need an ensemble; 7, 19, 28 and 46 are about the server's insides (applying transactions,
//! session ids, clocks) and are tested beside them; 16, 17, 42, 43 and 45 concern clients; 30 (lists have no
//! order) concerns tests.
//!
//! `ZK_TEST_SERVER=host:port` runs them against another server, except those that would kill Apache's.

mod protocol;
mod safety;
mod sessions;
mod tree;
mod watches;
