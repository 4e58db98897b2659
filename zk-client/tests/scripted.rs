//! The client against a server that says exactly what the test wants, over in-memory connections and with
//! virtual time.

#[path = "scripted/peer.rs"]
mod peer;

#[path = "scripted/cancel.rs"]
mod cancel;
#[path = "scripted/guards.rs"]
mod guards;
#[path = "scripted/hostile.rs"]
mod hostile;
#[path = "scripted/keepalive.rs"]
mod keepalive;
#[path = "scripted/order.rs"]
mod order;
#[path = "scripted/reconnect.rs"]
mod reconnect;
#[path = "scripted/recorded.rs"]
mod recorded;
#[path = "scripted/roots.rs"]
mod roots;
#[path = "scripted/watches.rs"]
mod watches;
