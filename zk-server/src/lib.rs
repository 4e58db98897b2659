//! A coordination server that speaks ZooKeeper's client protocol and keeps ZooKeeper's files.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod member;
pub mod mutation;
mod net;
pub mod replica;
mod server;
pub mod session;
pub mod storage;
pub mod tree;
mod tree_file;
pub mod txn;
pub mod watch;
pub mod zab;

pub use server::{Ensemble, EnsembleBuilder, ListenError, Server, ServerBuilder, StartError};
