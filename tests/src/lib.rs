//! What the whole-system tests share: the server under test, a client of the bare wire, recorded frames, fuzz
//! targets.

pub mod fuzz;
pub mod server;
pub mod sim;
pub mod vectors;
pub mod wire;
