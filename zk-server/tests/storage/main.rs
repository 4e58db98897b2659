//! Data directories: Apache's recorded ones, our own, and damaged ones.

mod model;
mod round_trip;
mod vectors;
