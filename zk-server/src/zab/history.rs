//! The recent transactions, for learners that have missed some.
