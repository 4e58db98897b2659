//! Deaths on purpose: at which moment of its work a role dies.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A moment in the life of a role at which dying is interesting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Client: a task is on its way to the server, the answer is not here.
    SubmitSent,
    /// Master: about to assign a task or to move an assignment.
    BeforeAssign,
    /// Master: the assignment is on its way, the answer is not here.
    AssignSent,
    /// Worker: halfway through a task.
    TaskHalfDone,
    /// Worker: done, nothing reported.
    BeforeReport,
    /// Worker: the report is on its way, the answer is not here.
    ReportSent,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::SubmitSent => "while submitting",
            Moment::BeforeAssign => "before assigning",
            Moment::AssignSent => "while assigning",
            Moment::TaskHalfDone => "halfway through",
            Moment::BeforeReport => "before reporting",
            Moment::ReportSent => "while reporting",
        })
    }
}

/// A death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Whoever comes to this moment...
    pub at: Moment,
    /// ... as the so-many-th of all, counted from 1, dies...
    pub nth: usize,
    /// ... and is started again under the same name after this time, or never.
    pub restart_after: Option<Duration>,
}

/// The deaths that are still to come, shared by all roles.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// A plan.
    pub fn new(faults: Vec<Fault>) -> Faults {
        Faults(Arc::new(Mutex::new(faults)))
    }

    /// Somebody has come to a moment; whether it dies.
    pub fn due(&self, moment: Moment) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter_mut().filter(|fault| fault.at == moment) {
            fault.nth = fault.nth.saturating_sub(1);
        }
        let at = faults.iter().position(|fault| fault.at == moment && fault.nth == 0)?;
        Some(faults.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_death_comes_once() {
        let fault = |at, nth| Fault { at, nth, restart_after: None };
        let faults = Faults::new(vec![fault(Moment::BeforeAssign, 2), fault(Moment::TaskHalfDone, 1)]);
        assert_eq!(faults.due(Moment::BeforeAssign), None);
        assert!(faults.due(Moment::TaskHalfDone).is_some());
        assert!(faults.due(Moment::BeforeAssign).is_some());
        assert_eq!(faults.due(Moment::BeforeAssign), None);
        assert_eq!(faults.due(Moment::TaskHalfDone), None);
    }
}
