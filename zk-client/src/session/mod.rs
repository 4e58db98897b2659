//! The client's side of a session as a value: requests in, frames out; replies, events and the passing of
//! time in, completions and state changes out. No sockets and no tasks: the [driver](crate::driver) moves
//! the bytes. (Time is an argument, except that a request enqueued without a connection notes when.)
//!
//! One mutex guards it. Whatever happens inside, wakers are collected and called after the lock is released.

pub(crate) mod cleanup;
mod close;
mod lease;
mod link;
pub(crate) mod outbox;
mod replies;
pub(crate) mod slots;
mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, SessionId, xid};

use crate::config::{Auth, Config};
use crate::error::{Failure, Outcome};
use crate::hosts::Host;
use crate::root::Root;
use crate::state::{SessionState, SessionTicket};
use crate::watch::{Answer, Ask, ListenerId, Registry, Want};

pub use cleanup::Cleanup;
use cleanup::CleanupQueue;
pub(crate) use close::CloseKind;
use close::Closing;
use lease::Lease;
pub(crate) use link::{Handshake, Verdict};
use outbox::{Entry, Limits, Outbox, Target};
use slots::{Completion, SlotId, Slots};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Down,
    /// A connection with a session.
    Up,
    /// Nothing happens any more.
    Over,
}

/// What belongs to a request besides its body.
#[derive(Default)]
pub(crate) struct Submission<'a> {
    /// The session that the request must not outlive.
    pub(crate) pin: Option<SessionId>,
    /// The listener that the reply registers.
    pub(crate) watch: Option<(Want, ListenerId)>,
    /// A sync of this path goes in front.
    pub(crate) sync: Option<(&'a Root, &'a str)>,
    /// Fail rather than wait for a slot.
    pub(crate) try_only: bool,
    /// Who waits.
    pub(crate) waker: Option<Waker>,
}

/// Credentials, and who waits for the server to take them.
#[derive(Debug)]
struct Credentials {
    auth: Auth,
    waiting: Vec<SlotId>,
}

/// A node whose owner needs the session to be provably alive.
#[derive(Debug)]
struct Hold {
    id: u64,
    session: SessionId,
    path: Arc<str>,
}

pub(crate) struct Session {
    config: Arc<Config>,
    /// Dropped at the end, so that receivers end too.
    states: Option<watch::Sender<SessionState>>,
    phase: Phase,
    id: SessionId,
    password: [u8; 16],
    timeout: Duration,
    last_zxid: i64,
    /// The server of the connection refuses writes.
    read_only: bool,
    /// The session was made by a read-only server and is worth nothing elsewhere.
    is_local: bool,
    generation: u64,
    /// Whether the lease has run out during this disconnect.
    unconfirmed: bool,
    outbox: Outbox,
    slots: Slots,
    pub(crate) watches: Registry,
    cleanup: CleanupQueue,
    lease: Lease,
    holds: Vec<Hold>,
    next_hold: u64,
    next_lease_write: Option<Instant>,
    credentials: Vec<Credentials>,
    /// Positions in `credentials`, in the order in which they were sent.
    auth_in_flight: VecDeque<usize>,
    /// The state to publish when the credentials of this connection are taken.
    announce: Option<SessionState>,
    ping_sent: Option<Instant>,
    /// The driver's last idea of the time.
    clock: Instant,
    /// The server does not know removeWatches.
    cannot_remove_watches: bool,
    closing: Option<Closing>,
    /// Why nothing happens any more.
    over: Option<Failure>,
    /// The driver shall drop the connection.
    drop_link: Option<String>,
    driver: Option<Waker>,
    driver_woken: bool,
    /// The servers that the ensemble's configuration names, for the driver to take.
    pub(crate) ensemble: Option<Vec<Host>>,
    /// A request was answered since the driver asked last.
    pub(crate) has_served: bool,
    /// Why the last attempt to connect failed.
    pub(crate) dial_error: String,
    /// To be woken when the lock is released.
    pub(crate) wakers: Vec<Waker>,
    #[cfg(feature = "testing")]
    pub(crate) reads_paused: bool,
    #[cfg(feature = "testing")]
    pub(crate) dialing_paused: bool,
}

impl Session {
    pub(crate) fn new(config: Arc<Config>, states: watch::Sender<SessionState>) -> Self {
        let limits = Limits {
            requests: config.max_in_flight,
            bytes: config.max_in_flight_bytes,
            request_bytes: config.max_request_bytes,
        };
        let resume = config.resume.clone();
        Session {
            states: Some(states),
            phase: Phase::Down,
            id: resume.as_ref().map_or(SessionId::NONE, SessionTicket::id),
            password: resume.as_ref().map_or([0; 16], SessionTicket::password),
            timeout: config.session_timeout,
            last_zxid: resume.as_ref().map_or(0, SessionTicket::last_zxid),
            read_only: false,
            is_local: false,
            generation: 0,
            unconfirmed: false,
            outbox: Outbox::new(limits),
            slots: Slots::default(),
            watches: Registry::default(),
            cleanup: CleanupQueue::default(),
            lease: Lease::new(config.lease_proof, config.lease_margin),
            holds: Vec::new(),
            next_hold: 0,
            next_lease_write: None,
            credentials: config
                .auth
                .iter()
                .map(|auth| Credentials { auth: auth.clone(), waiting: Vec::new() })
                .collect(),
            auth_in_flight: VecDeque::new(),
            announce: None,
            ping_sent: None,
            clock: Instant::now(),
            cannot_remove_watches: false,
            closing: None,
            over: None,
            drop_link: None,
            driver: None,
            driver_woken: false,
            ensemble: None,
            has_served: false,
            dial_error: "no server tried".to_owned(),
            wakers: Vec::new(),
            #[cfg(feature = "testing")]
            reads_paused: false,
            #[cfg(feature = "testing")]
            dialing_paused: false,
            config,
        }
    }

    /// The current session, [`SessionId::NONE`] when there is none.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn ticket(&self) -> SessionTicket {
        SessionTicket::new(self.id, self.password, self.last_zxid, self.timeout)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether a request that is enqueued now has to wait for its turn.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Registers who moves the bytes; it is woken once, by the next thing that needs it.
    pub(crate) fn register_driver(&mut self, waker: &Waker) {
        self.driver_woken = false;
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake_driver(&mut self) {
        self.driver_woken = true;
    }

    /// Who moves the bytes, if there is something for it to do. Apart from the other wakers, so that the
    /// usual case of a single one needs no list.
    pub(crate) fn driver_to_wake(&mut self) -> Option<Waker> {
        if self.driver_woken { self.driver.take() } else { None }
    }

    /// Ready when something has happened since the last time that concerns the driver.
    pub(crate) fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let woken = self.driver_woken;
        self.register_driver(cx.waker());
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }

    fn publish(&mut self, state: SessionState) {
        tracing::info!(session = %self.id, ?state, "session state");
        if let Some(states) = &self.states {
            states.send_replace(state);
        }
    }

    /// Why no request can be taken; `Ok` when one can.
    fn check_open(&self, pin: Option<SessionId>) -> Result<(), Failure> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        if self.closing.is_some() {
            return Err(Failure::Closed);
        }
        match pin {
            Some(pin) if pin != self.id => Err(Failure::SessionExpired(pin)),
            _ => Ok(()),
        }
    }

    /// When a request is enqueued matters only while nothing can be written; otherwise the clock is not asked.
    fn enqueue_time(&self) -> Instant {
        if self.phase == Phase::Up { self.clock } else { Instant::now() }
    }

    /// Enqueues a request; `encode` writes its body. The slot is the caller's until it has taken the
    /// completion or abandoned it.
    pub(crate) fn submit(
        &mut self,
        op: OpCode,
        submission: Submission<'_>,
        encode: impl FnOnce(&mut Vec<u8>, Ask),
    ) -> Result<SlotId, Failure> {
        let Submission { pin, watch, sync, try_only, waker } = submission;
        self.check_open(pin)?;
        if try_only && self.outbox.is_full() {
            return Err(Failure::Overloaded);
        }
        let now = self.enqueue_time();
        let slot = self.slots.open(waker);
        if let Some((root, path)) = sync {
            let target = Target::Sync(slot);
            let pushed = self.outbox.push(OpCode::Sync, target, None, now, |w| root.put(w, path));
            pushed.map_err(|too_long| self.reject(slot, too_long))?;
        }
        let (registration, ask) = match watch {
            Some((want, listener)) => {
                let (registration, ask) = self.watches.begin(want, listener);
                (Some(Box::new(registration)), ask)
            }
            None => (None, Ask::Nothing),
        };
        let target = Target::Caller(slot);
        let pushed = self.outbox.push(op, target, registration, now, |w| encode(w, ask));
        pushed.map_err(|too_long| self.reject(slot, too_long))?;
        self.wake_driver();
        Ok(slot)
    }

    fn reject(&mut self, slot: SlotId, too_long: outbox::TooLong) -> Failure {
        if let Some(registration) = too_long.registration {
            self.watches.complete(*registration, Answer::Failed, &mut self.wakers);
        }
        self.slots.release(slot);
        Failure::TooLong { bytes: too_long.bytes, max: self.config.max_request_bytes }
    }

    /// The caller of `slot` leaves. With `withdraw`, the request is taken back if it was not written.
    /// Returns what is known about its effect.
    pub(crate) fn abandon(&mut self, slot: SlotId, withdraw: bool) -> Outcome {
        let entry = if withdraw { self.outbox.withdraw(slot) } else { None };
        match entry {
            Some(entry) => {
                self.drop_entry(entry, Failure::ConnectionLoss(Outcome::NotSent));
                self.slots.abandon(slot);
                Outcome::NotSent
            }
            None => {
                self.slots.abandon(slot);
                Outcome::Unknown
            }
        }
    }

    /// Ends an entry that will get no answer.
    fn drop_entry(&mut self, entry: Entry, failure: Failure) {
        if let Some(registration) = entry.registration {
            let removal = self.watches.complete(*registration, Answer::Failed, &mut self.wakers);
            if let Some(removal) = removal {
                self.remove_watch(removal);
            }
        }
        match entry.target {
            Target::Caller(slot) => {
                if let Some(metrics) = &self.config.metrics {
                    metrics.request(entry.op, None, entry.since.elapsed());
                }
                self.slots.complete(slot, Completion::Failed(failure), &mut self.wakers);
            }
            Target::Cleanup { .. }
            | Target::Sync(_)
            | Target::Nobody
            | Target::SetWatches
            | Target::RemoveWatch
            | Target::Ensemble
            | Target::Lease
            | Target::CloseSession => {}
        }
    }

    pub(crate) fn poll_slot(&mut self, slot: SlotId, cx: &mut Context<'_>) -> Poll<Completion> {
        self.slots.poll(slot, cx)
    }

    /// Adds credentials for this connection and all later ones. The slot completes when a server took them.
    pub(crate) fn authenticate(
        &mut self,
        auth: Auth,
        pin: Option<SessionId>,
        waker: Option<Waker>,
    ) -> Result<SlotId, Failure> {
        self.check_open(pin)?;
        let slot = self.slots.open(waker);
        let at = match self.credentials.iter().position(|known| known.auth == auth) {
            Some(at) => at,
            None => {
                self.credentials.push(Credentials { auth, waiting: Vec::new() });
                self.credentials.len() - 1
            }
        };
        self.credentials[at].waiting.push(slot);
        if self.phase == Phase::Up {
            Self::push_auth(&mut self.outbox, &self.credentials[at].auth);
            self.auth_in_flight.push_back(at);
            self.wake_driver();
        }
        Ok(slot)
    }

    fn push_auth(outbox: &mut Outbox, auth: &Auth) {
        outbox.push_raw(xid::AUTH, OpCode::Auth, |w| {
            w.put_int(0);
            w.put_str(&auth.scheme);
            w.put_buffer(Some(&auth.token));
        });
    }

    #[cfg(feature = "testing")]
    pub(crate) fn pause_reads(&mut self, pause: bool) {
        self.reads_paused = pause;
        self.wake_driver();
    }

    #[cfg(feature = "testing")]
    pub(crate) fn cleanup_backlog(&self) -> usize {
        self.cleanup.len()
    }

    /// The driver shall drop the connection and make a new one.
    pub(crate) fn drop_link(&mut self, why: &str) {
        if self.phase == Phase::Up {
            self.drop_link = Some(why.to_owned());
            self.wake_driver();
        }
    }
}
