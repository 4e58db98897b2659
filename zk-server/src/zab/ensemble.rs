//! Who belongs to the ensemble, what a quorum is, and the text form of both.
