//! What handles and driver share: the session behind its lock.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::session::{CloseKind, Session};
use crate::state::{SessionState, SessionStates};

pub(crate) struct Shared {
    session: Mutex<Session>,
    states: watch::Receiver<SessionState>,
    pub(crate) config: Arc<Config>,
    pub(crate) random: Mutex<fastrand::Rng>,
    #[cfg(feature = "testing")]
    pub(crate) gates: crate::testing::Gates,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let config = Arc::new(config);
        let (sender, states) = watch::channel(SessionState::Connecting);
        let random = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Arc::new(Shared {
            session: Mutex::new(Session::new(config.clone(), sender)),
            states,
            config,
            random: Mutex::new(random),
            #[cfg(feature = "testing")]
            gates: crate::testing::Gates::default(),
        })
    }

    /// Runs `f` on the session; whom it wakes is woken after the lock is released.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.lock();
        let result = f(&mut session);
        let wakers = std::mem::take(&mut session.wakers);
        let driver = session.driver_to_wake();
        drop(session);
        driver.into_iter().chain(wakers).for_each(Waker::wake);
        result
    }

    /// As [`with`](Self::with), for the driver itself: it is not woken, and the list of wakers is used again and
    /// again.
    pub(crate) fn with_wakers<T>(&self, wakers: &mut Vec<Waker>, f: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.lock();
        std::mem::swap(&mut session.wakers, wakers);
        let result = f(&mut session);
        std::mem::swap(&mut session.wakers, wakers);
        drop(session);
        wakers.drain(..).for_each(Waker::wake);
        result
    }

    pub(crate) fn states(&self) -> SessionStates {
        let mut receiver = self.states.clone();
        receiver.mark_unchanged();
        SessionStates::new(receiver)
    }
}

/// Keeps the session open: when the last one is dropped, the session is closed in the background.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl std::ops::Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|session| session.close(CloseKind::Close, Instant::now()));
    }
}
