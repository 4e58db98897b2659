//! Futures of operations.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;
use zk_proto::{DecodeError, OpCode, Reader, SessionId};

use crate::client::Client;
use crate::error::{Error, Outcome, Result, ServerCode};
use crate::root::Root;
use crate::session::Submission;
use crate::session::slots::{Completion, SlotId};
use crate::shared::Handle;
use crate::watch::{Ask, ListenerId, Want};

/// What is known about a request when its reply is decoded.
pub(crate) struct Reply<'a> {
    pub(crate) op: OpCode,
    /// The path as the caller gave it.
    pub(crate) path: &'a str,
    pub(crate) root: &'a Root,
    pub(crate) code: ServerCode,
    pub(crate) body: &'a Bytes,
    /// Number of operations in a multi.
    pub(crate) operations: usize,
}

impl Reply<'_> {
    /// The server's error as ours; `Ok` for 0.
    pub(crate) fn ok(&self) -> Result<()> {
        match self.code {
            ServerCode::OK => Ok(()),
            code => Err(Error::Server { op: self.op.name(), path: self.path.to_owned(), code }),
        }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(self.body)
    }

    /// A part of the body that was decoded from [`reader`](Self::reader), without copying it. Empty data
    /// does not keep the receive buffer alive.
    pub(crate) fn share(&self, part: Option<&[u8]>) -> Bytes {
        match part {
            None | Some([]) => Bytes::new(),
            Some(part) => self.body.slice_ref(part),
        }
    }

    pub(crate) fn garbled(&self, error: DecodeError) -> Error {
        Error::Protocol(format!("{} {}: {error}", self.op, self.path))
    }
}

pub(crate) type Decode<T> = fn(&Reply<'_>) -> Result<T>;

/// One request and the wait for its answer.
pub(crate) struct Call<'a, T> {
    handle: Arc<Handle>,
    slot: Option<SlotId>,
    op: OpCode,
    path: Cow<'a, str>,
    root: Root,
    session: SessionId,
    decode: Decode<T>,
    operations: usize,
    timeout: Option<(Duration, Pin<Box<Sleep>>)>,
    /// Take the request back, if that is still possible, when the caller leaves.
    withdraw: bool,
    span: Option<Box<tracing::Span>>,
}

/// What a request consists of, besides its body.
pub(crate) struct Plan<'a, T> {
    pub(crate) client: &'a Client,
    pub(crate) op: OpCode,
    pub(crate) path: Cow<'a, str>,
    pub(crate) decode: Decode<T>,
    pub(crate) watch: Option<(Want, ListenerId)>,
    /// Reads of a linearizable handle follow a sync.
    pub(crate) is_read: bool,
    /// Number of operations in a multi.
    pub(crate) operations: usize,
    pub(crate) mode: SubmitMode,
}

/// How a request is enqueued.
#[derive(Default)]
pub(crate) struct SubmitMode {
    /// Fail if there is no room.
    pub(crate) try_only: bool,
    /// The request goes out even if nobody waits for the answer.
    pub(crate) detached: bool,
    pub(crate) waker: Option<Waker>,
}

impl SubmitMode {
    /// As `send()` and `try_send()` do it.
    pub(crate) fn send(try_only: bool) -> Self {
        SubmitMode { try_only, detached: true, waker: None }
    }
}

impl<'a, T> Call<'a, T> {
    /// Enqueues a request; `encode` writes its body.
    pub(crate) fn submit(plan: Plan<'a, T>, encode: impl FnOnce(&mut Vec<u8>, Ask)) -> Result<Self> {
        let Plan { client, op, path, decode, watch, is_read, operations, mode } = plan;
        let submission = Submission {
            pin: client.pin,
            watch,
            sync: (is_read && client.linearizable).then_some((&client.root, &*path)),
            try_only: mode.try_only,
            waker: mode.waker,
        };
        let submitted = client.handle.with(|session| {
            let id = session.id();
            session.submit(op, submission, encode).map(|slot| (slot, id))
        });
        let (slot, session) = submitted.map_err(|failure| failure.into_error(op.name(), &path))?;
        let mut call = Call::waiting(client, op, path, decode, slot, session);
        call.operations = operations;
        call.withdraw = !mode.detached;
        Ok(call)
    }

    /// The wait for a slot that is open already.
    pub(crate) fn waiting(
        client: &Client,
        op: OpCode,
        path: Cow<'a, str>,
        decode: Decode<T>,
        slot: SlotId,
        session: SessionId,
    ) -> Self {
        let timeout = client.handle.config.request_timeout;
        // The check is one load when tracing is off; a span is made only for those who look.
        let span = tracing::enabled!(tracing::Level::DEBUG).then(|| {
            let empty = tracing::field::Empty;
            let span = tracing::debug_span!("zk.op", op = op.name(), %path, code = empty, zxid = empty, bytes_in = empty);
            Box::new(span)
        });
        Call {
            handle: client.handle.clone(),
            slot: Some(slot),
            op,
            path,
            root: client.root.clone(),
            session,
            decode,
            operations: 0,
            timeout: timeout.map(|after| (after, Box::pin(tokio::time::sleep(after)))),
            withdraw: true,
            span,
        }
    }

    fn finish(&mut self, completion: Completion) -> Result<T> {
        self.slot = None;
        match completion {
            Completion::Reply { code, zxid, body } => {
                if let Some(span) = &self.span {
                    span.record("code", code.0).record("zxid", zxid.0).record("bytes_in", body.len());
                }
                if code == ServerCode::SESSION_EXPIRED {
                    return Err(Error::SessionExpired(self.session));
                }
                let reply = Reply {
                    op: self.op,
                    path: &self.path,
                    root: &self.root,
                    code,
                    body: &body,
                    operations: self.operations,
                };
                (self.decode)(&reply)
            }
            Completion::Failed(failure) => Err(failure.into_error(self.op.name(), &self.path)),
        }
    }

    /// The same call without ties to the caller's path.
    pub(crate) fn into_owned(mut self) -> Call<'static, T> {
        Call {
            handle: self.handle.clone(),
            slot: self.slot.take(),
            op: self.op,
            path: Cow::Owned(std::mem::take(&mut self.path).into_owned()),
            root: std::mem::take(&mut self.root),
            session: self.session,
            decode: self.decode,
            operations: self.operations,
            timeout: self.timeout.take(),
            withdraw: self.withdraw,
            span: self.span.take(),
        }
    }
}

impl<T> Future for Call<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        let Some(slot) = this.slot else {
            return Poll::Ready(Err(Error::Protocol("polled after completion".to_owned())));
        };
        let _entered = this.span.as_ref().map(|span| span.clone().entered());
        if let Poll::Ready(completion) = this.handle.with(|session| session.poll_slot(slot, cx)) {
            return Poll::Ready(this.finish(completion));
        }
        if let Some((after, sleep)) = &mut this.timeout
            && sleep.as_mut().poll(cx).is_ready()
        {
            this.slot = None;
            let outcome = this.handle.with(|session| session.abandon(slot, true));
            let (op, path, after) = (this.op.name(), this.path.to_string(), *after);
            return Poll::Ready(Err(Error::Timeout { op, path, after, outcome }));
        }
        Poll::Pending
    }
}

impl<T> Drop for Call<'_, T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let _: Outcome = self.handle.with(|session| session.abandon(slot, self.withdraw));
        }
    }
}

/// A future in a box, for operations of several requests.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// An operation that has begun.
pub(crate) enum Started<'a, T> {
    Call(Call<'a, T>),
    Boxed(Boxed<'a, T>),
    Failed(Error),
    Over,
}

impl<T> Started<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let result = match self {
            Started::Call(call) => Pin::new(call).poll(cx),
            Started::Boxed(future) => future.as_mut().poll(cx),
            Started::Failed(error) => Poll::Ready(Err(error.clone())),
            Started::Over => Poll::Ready(Err(Error::Protocol("polled after completion".to_owned()))),
        };
        if result.is_ready() {
            *self = Started::Over;
        }
        result
    }
}

impl<'a, T> From<Result<Call<'a, T>>> for Started<'a, T> {
    fn from(submitted: Result<Call<'a, T>>) -> Self {
        match submitted {
            Ok(call) => Started::Call(call),
            Err(error) => Started::Failed(error),
        }
    }
}

/// A description of an operation, ready to be sent.
pub(crate) trait Operation<'a>: Sized {
    type Output;

    /// Enqueues the operation.
    fn start(self, mode: SubmitMode) -> Started<'a, Self::Output>;

    /// Enqueues the operation now, in a form that outlives the path and the client it was made from.
    fn send_now(self, try_only: bool) -> Result<Pending<Self::Output>>
    where
        Self::Output: 'static;
}

/// The future of an operation that is enqueued when it is first polled.
///
/// Dropped before that, it has no effect. Dropped later, the request is taken back if it was not written yet;
/// otherwise it takes its course, and its reply is ignored.
#[must_use = "nothing is sent until this is awaited"]
pub struct OpFuture<'a, B, T>(State<'a, B, T>);

enum State<'a, B, T> {
    Described(Option<B>),
    Started(Started<'a, T>),
}

impl<B, T> OpFuture<'_, B, T> {
    pub(crate) fn new(builder: B) -> Self {
        OpFuture(State::Described(Some(builder)))
    }
}

impl<B, T> Unpin for OpFuture<'_, B, T> {}

#[allow(private_bounds)]
impl<'a, B: Operation<'a, Output = T>, T> Future for OpFuture<'a, B, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if let State::Described(builder) = &mut self.0 {
            let mode = SubmitMode { waker: Some(cx.waker().clone()), ..SubmitMode::default() };
            let started = builder.take().map_or(Started::Over, |builder| builder.start(mode));
            let waits = matches!(&started, Started::Call(call) if call.timeout.is_none());
            self.0 = State::Started(started);
            if waits {
                // Enqueued with this task's waker: an answer that is there already has woken it.
                return Poll::Pending;
            }
        }
        match &mut self.0 {
            State::Started(started) => started.poll(cx),
            State::Described(_) => Poll::Pending,
        }
    }
}

/// An operation that was enqueued by `send()`. Owns what it needs: it can be moved into a task.
///
/// The request goes out whether this is awaited or dropped. (Of an operation that takes several requests, such
/// as a recursive delete, the first goes out; the others need this to be awaited.)
#[must_use = "the outcome is lost unless this is awaited"]
pub struct Pending<T: 'static>(Started<'static, T>);

impl<T: 'static> Pending<T> {
    /// What a single request has started.
    pub(crate) fn call(call: Call<'_, T>) -> Self {
        Pending(Started::Call(call.into_owned()))
    }

    pub(crate) fn failed(error: Error) -> Self {
        Pending(Started::Failed(error))
    }

    /// Starts an operation of several requests: its first request is enqueued now, the others when this is
    /// polled.
    pub(crate) fn begin(mut future: Boxed<'static, T>) -> Self
    where
        T: Send,
    {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Pending(Started::Boxed(future)),
            Poll::Ready(Err(error)) => Pending::failed(error),
            Poll::Ready(done) => Pending(Started::Boxed(Box::pin(std::future::ready(done)))),
        }
    }
}

impl<T: 'static> Unpin for Pending<T> {}

impl<T: 'static> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.poll(cx)
    }
}

/// Implements [`Operation`] for a builder that is one request, made by its method `call`.
macro_rules! one_request {
    ($name:ident, $output:ty) => {
        impl<'a> crate::call::Operation<'a> for $name<'a> {
            type Output = $output;

            fn start(self, mode: crate::call::SubmitMode) -> crate::call::Started<'a, $output> {
                self.call(mode).into()
            }

            fn send_now(self, try_only: bool) -> crate::error::Result<crate::call::Pending<$output>> {
                self.call(crate::call::SubmitMode::send(try_only)).map(crate::call::Pending::call)
            }
        }

        crate::call::operation_methods!($name, $output);
    };
}
pub(crate) use one_request;

/// Implements [`Operation`] for a builder that may need several requests: `start` without a box if it does
/// not, and `run`, which owns everything, if it does.
macro_rules! several_requests {
    ($name:ident, $output:ty) => {
        impl<'a> crate::call::Operation<'a> for $name<'a> {
            type Output = $output;

            fn start(self, mode: crate::call::SubmitMode) -> crate::call::Started<'a, $output> {
                if self.is_one_request() {
                    return self.call(mode).into();
                }
                crate::call::Started::Boxed(Box::pin(self.run()))
            }

            fn send_now(self, try_only: bool) -> crate::error::Result<crate::call::Pending<$output>> {
                if self.is_one_request() {
                    let mode = crate::call::SubmitMode::send(try_only);
                    return self.call(mode).map(crate::call::Pending::call);
                }
                if try_only && self.client.handle.with(|session| session.is_full()) {
                    return Err(crate::error::Error::Overloaded);
                }
                Ok(crate::call::Pending::begin(Box::pin(self.run())))
            }
        }

        crate::call::operation_methods!($name, $output);
    };
}
pub(crate) use several_requests;

/// Implements `.await`, `.send()` and `.try_send()` for an operation.
macro_rules! operation_methods {
    ($name:ident, $output:ty) => {
        impl<'a> std::future::IntoFuture for $name<'a> {
            type Output = crate::error::Result<$output>;
            type IntoFuture = crate::call::OpFuture<'a, $name<'a>, $output>;

            fn into_future(self) -> Self::IntoFuture {
                crate::call::OpFuture::new(self)
            }
        }

        impl<'a> $name<'a> {
            /// Enqueues the operation now, so that operations go out in the order of their `send` calls. When
            /// too many requests are in flight the operation waits for its turn, in order.
            pub fn send(self) -> crate::call::Pending<$output> {
                crate::call::Operation::send_now(self, false).unwrap_or_else(crate::call::Pending::failed)
            }

            /// As [`send`](Self::send), but fails with [`Error::Overloaded`](crate::Error::Overloaded) when
            /// too many requests are in flight, and at once with every other error that needs no server.
            pub fn try_send(self) -> crate::error::Result<crate::call::Pending<$output>> {
                crate::call::Operation::send_now(self, true)
            }
        }
    };
}
pub(crate) use operation_methods;

/// Fails a call before anything is sent.
pub(crate) fn invalid(op: OpCode, path: &str, error: zk_proto::path::PathError) -> Error {
    Error::InvalidArgument(format!("{op} {path:?}: {error}"))
}
