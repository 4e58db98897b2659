//! Who should lead.
