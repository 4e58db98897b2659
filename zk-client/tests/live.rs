//! Every operation against a real server.
//!
//! `ZK_TEST_CONNECT=host:port` names the server; it must have `extendedTypesEnabled` for the TTL tests. Each
//! test works below a chroot of its own.

#[path = "live/basic.rs"]
mod basic;
#[path = "live/sessions.rs"]
mod sessions;
#[path = "live/support.rs"]
mod support;
#[path = "live/typed.rs"]
mod typed;
#[path = "live/watching.rs"]
mod watching;
