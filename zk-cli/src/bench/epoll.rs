//! A thin hand on epoll: connections are known by their index.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

/// Events that one wait can return.
const BATCH: usize = 256;

/// The index under which a [`Timer`] reports.
const TIMER: usize = usize::MAX;

/// Readiness of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The index under which it was added.
    pub index: usize,
    /// It can be read, or is at its end; else it can be written.
    pub readable: bool,
}

/// Room for the events of one wait.
pub struct Events(Vec<epoll::Event>);

impl Events {
    /// Makes the room.
    pub fn new() -> Self {
        Events(Vec::with_capacity(BATCH))
    }
}

/// An epoll instance.
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        Ok(Epoll { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `source` under `index`; `writable` as in [`Epoll::set_writable`].
    pub fn add(&self, source: impl AsFd, index: usize, writable: bool) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, data(index), interest(writable))?)
    }

    /// Says whether to wait until `source` can be written, besides until it can be read.
    pub fn set_writable(&self, source: impl AsFd, index: usize, writable: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, source, data(index), interest(writable))?)
    }

    /// Watches `source` no longer.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, source)?)
    }

    /// Waits until something is ready, a [`Timer`] goes off, or `timeout` (rounded up to ms) is over.
    pub fn wait<'e>(
        &self,
        events: &'e mut Events,
        timeout: Duration,
    ) -> io::Result<impl Iterator<Item = Ready> + use<'e>> {
        let ms = timeout.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
        let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        events.0.clear();
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut events.0), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let end = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let connections = events.0.iter().filter(|event| event.data.u64() != TIMER as u64);
        Ok(connections.map(move |event| {
            let flags = event.flags;
            Ready {
                index: event.data.u64() as usize,
                readable: flags.intersects(epoll::EventFlags::IN | end),
            }
        }))
    }
}

fn data(index: usize) -> epoll::EventData {
    epoll::EventData::new_u64(index as u64)
}

fn interest(writable: bool) -> epoll::EventFlags {
    if writable { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}

/// Ends a wait at a moment that is finer than the milliseconds of epoll's own timeout.
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// Makes a timer that ends the waits of `epoll`.
    pub fn new(epoll: &Epoll) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll.add(&fd, TIMER, false)?;
        Ok(Timer { fd })
    }

    /// Goes off once after `delay`, in the place of an earlier setting.
    pub fn set(&self, delay: Duration) -> io::Result<()> {
        let delay = delay.max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}
