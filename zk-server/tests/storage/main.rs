//! Data directories: Apache's recorded ones, our own, and damaged ones.

mod crash;
mod damage;
mod history;
mod member;
mod member_crash;
mod model;
mod purge;
mod round_trip;
mod start;
mod vectors;
