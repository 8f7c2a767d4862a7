//! The server's sockets: they close with a FIN at once, measure whether the peer reads, and limit the bytes read from a
//! peer that has not registered.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::base::lock::lock;
use crate::base::stream::Stream;

use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};

use super::timers::Flow;

/// Shares the [`Flow`] of one socket between its users.
#[derive(Debug, Default)]
pub(super) struct Gauge(Mutex<Flow>);

impl Gauge {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        lock(&self.0)
    }

    pub(super) fn flow(&self) -> Flow {
        *self.lock()
    }

    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        let mut flow = self.lock();
        match (written, flow.blocked) {
            (Poll::Pending, None) => flow.blocked = Some(Instant::now()),
            (Poll::Ready(Ok(_)), Some(_)) => *flow = Flow { blocked: None, relieved: Some(Instant::now()) },
            (Poll::Pending, Some(_)) | (Poll::Ready(_), _) => {}
        }
    }
}

/// A TCP connection whose `poll_close` sends a FIN; [`Async`] only flushes.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: Async<TcpStream>,
    gauge: Arc<Gauge>,
}

impl Tcp {
    pub(super) fn new(stream: Async<TcpStream>) -> Self {
        Self { stream, gauge: Arc::default() }
    }

    pub(super) fn gauge(&self) -> Arc<Gauge> {
        self.gauge.clone()
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        self.gauge.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, from);
        self.gauge.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        match self.stream.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }
}

/// The error of reading more than [`Io::allow`] permits.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes from a peer that has not registered")]
struct TooMuch;

/// Returns whether reading failed because of the limit set by [`Io::allow`].
pub(super) fn is_too_much(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<TooMuch>())
}

/// A connection, with or without TLS.
pub(super) struct Io {
    stream: Pin<Box<dyn Stream>>,
    gauge: Arc<Gauge>,
    /// The number of bytes that may still be read; none for no limit.
    allowance: Option<usize>,
}

impl Io {
    /// Wraps a stream over the TCP connection that updates `gauge`.
    pub(super) fn new(stream: impl Stream + 'static, gauge: Arc<Gauge>) -> Self {
        Self { stream: Box::pin(stream), gauge, allowance: None }
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Sets the number of bytes that may still be read; none for no limit.
    pub(super) fn allow(&mut self, bytes: Option<usize>) {
        self.allowance = bytes;
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(left) = self.allowance else { return self.stream.as_mut().poll_read(context, to) };
        if left == 0 && !to.is_empty() {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let most = to.len().min(left);
        let read = ready!(self.stream.as_mut().poll_read(context, &mut to[..most]))?;
        self.allowance = Some(left - read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use smol::io::{AsyncReadExt, Cursor};

    use super::*;

    #[test]
    fn reading_stops_at_the_allowance() {
        smol::block_on(async {
            let mut io = Io::new(Cursor::new(vec![7; 100]), Arc::default());
            io.allow(Some(10));
            let mut read = [0; 100];
            assert_eq!(io.read(&mut read).await.unwrap(), 10);
            let error = io.read(&mut read).await.unwrap_err();
            assert!(is_too_much(&error), "{error}");
            assert!(!is_too_much(&io::Error::other("another")));
            io.allow(None);
            assert_eq!(io.read(&mut read).await.unwrap(), 90);
        });
    }

    #[test]
    fn a_gauge_shows_since_when_the_socket_accepts_nothing() {
        let gauge = Gauge::default();
        gauge.note(&Poll::Ready(Ok(1)));
        assert_eq!(gauge.flow(), Flow::default());
        gauge.note::<usize>(&Poll::Pending);
        let blocked = gauge.flow();
        assert!(blocked.blocked.is_some() && blocked.relieved.is_none());
        gauge.note::<usize>(&Poll::Pending);
        assert_eq!(gauge.flow(), blocked, "the first time counts");
        gauge.note(&Poll::Ready(Ok(1)));
        let flow = gauge.flow();
        assert!(flow.blocked.is_none() && flow.relieved >= blocked.blocked);
    }
}
