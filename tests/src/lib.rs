//! What the whole-system tests share: recorded frames, fuzz targets.

pub mod fuzz;
pub mod vectors;
pub mod wire;
