//! Hostile clients: during each attack an ordinary client keeps working, the server's memory stays bounded, and
//! the attacker gets what the protocol says.
//!
//! The attacks are sized for a few seconds on a small machine; what they show does not depend on their size.
//! Memory is what the whole process has allocated, the attacker's side included, so that the bounds are a little
//! wider than the server's own. For attacks on files see the fuzz targets `snapshot` and `log`.

mod access;
mod connections;
mod frames;
mod load;
mod scene;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
