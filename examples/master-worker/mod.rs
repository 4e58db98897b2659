//! A job system: clients add tasks, a master hands them to workers, workers report, and any of them may die at
//! any moment.
//!
//! Everything that must survive a death is in ZooKeeper:
//!
//! | node | kind | written by | data |
//! |---|---|---|---|
//! | `/election/…` | ephemeral, sequential | masters | name of the candidate; the first in line leads |
//! | `/master` | ephemeral | the leading master | its address, for people to look at |
//! | `/workers/<worker>` | ephemeral | the worker | its address: there while the worker lives |
//! | `/assign/<worker>` | persistent | the worker | |
//! | `/assign/<worker>/task-<n>` | persistent | the leading master | the command again |
//! | `/tasks/task-<n>` | persistent, sequential | a client | the command; version 0 means never assigned |
//! | `/tasks/task-<n>/status` | persistent | the worker | the result |
//!
//! What holds at every moment, whoever dies when:
//!
//! 1. A task gets exactly one `status`.
//! 2. A task is assigned to at most one worker.
//! 3. Nothing that was submitted is forgotten: a new master knows all from the tree.
//! 4. Work may begin more than once, but its result counts once.
//!
//! Each follows from a write that is applied as a whole or not at all:
//!
//! * assign: *I still lead* + *the worker lives* + *the task was never assigned* + create the assignment;
//! * move away from a dead worker: *I still lead* + *the new worker lives* + delete the old assignment + create
//!   the new one;
//! * report: *I am still registered* + create the status + delete the assignment.
//!
//! No role remembers what it cannot read again. After a lost connection nobody guesses whether the last write
//! was applied: it reads the tree and goes on from there.

pub mod audit;
pub mod board;
pub mod client;
pub mod corpus;
pub mod error;
pub mod faults;
pub mod master;
pub mod nodes;
pub mod process;
pub mod report;
pub mod system;
pub mod timeline;
pub mod worker;
