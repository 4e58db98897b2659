//! What reaches an I/O thread from other threads: mail of the replica, and commands.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::Waker;
use parking_lot::Mutex;

use super::Command;
use crate::replica::messages::Mail;

/// The inbox of one I/O thread.
///
/// Delivering costs no system call while the thread is awake: it looks here before it sleeps.
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    commands: Mutex<Vec<Command>>,
    has_commands: AtomicBool,
    /// The thread sleeps, or is about to.
    parked: AtomicBool,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Inbox {
            mail: Mutex::default(),
            has_mail: AtomicBool::new(false),
            commands: Mutex::default(),
            has_commands: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            waker,
        }
    }

    /// Adds letters, and leaves `mail` empty. The caller wakes the thread when it holds no lock any more.
    pub(crate) fn deliver(&self, mail: &mut Mail) {
        let mut inbox = self.mail.lock();
        inbox.append(mail);
        self.has_mail.store(true, Ordering::SeqCst);
    }

    /// Adds a command and wakes the thread.
    pub(crate) fn command(&self, command: Command) {
        let mut commands = self.commands.lock();
        commands.push(command);
        self.has_commands.store(true, Ordering::SeqCst);
        drop(commands);
        self.wake();
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        if self.parked.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // It wakes for its timers a moment later.
            tracing::warn!(%error, "cannot wake an I/O thread");
        }
    }

    /// Whether letters wait. Letters of a change are seen here by whoever has locked the tree behind it.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::SeqCst)
    }

    /// Takes all letters; `mail` is empty before.
    pub(crate) fn take_mail(&self, mail: &mut Mail) {
        let mut inbox = self.mail.lock();
        self.has_mail.store(false, Ordering::SeqCst);
        std::mem::swap(&mut *inbox, mail);
    }

    /// Takes all commands.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        if !self.has_commands.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut commands = self.commands.lock();
        self.has_commands.store(false, Ordering::SeqCst);
        std::mem::take(&mut *commands)
    }

    /// Announces that the thread goes to sleep; false if there is something to do first. To be followed by
    /// [`Inbox::unpark`].
    pub(crate) fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        !self.has_mail() && !self.has_commands.load(Ordering::SeqCst)
    }

    /// The thread is awake again.
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }
}

/// Makes the waker of an inbox.
pub(crate) fn waker(registry: &mio::Registry) -> io::Result<Waker> {
    Waker::new(registry, super::io_thread::WAKER)
}
