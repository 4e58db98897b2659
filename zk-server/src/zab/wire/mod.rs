//! The bytes between servers: election port and quorum port.
