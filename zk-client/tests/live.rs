//! Every operation against a real server: an embedded one of ours, unless `ZK_TEST_CONNECT=host:port` names
//! another. That one needs `extendedTypesEnabled` for the TTL nodes. Each test works below a chroot of its own.

#[path = "live/basic.rs"]
mod basic;
#[path = "live/restart.rs"]
mod restart;
#[path = "live/sessions.rs"]
mod sessions;
#[path = "live/support.rs"]
mod support;
#[path = "live/typed.rs"]
mod typed;
#[path = "live/watching.rs"]
mod watching;
