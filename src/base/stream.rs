//! Byte streams of any kind.

use smol::io::{AsyncRead, AsyncWrite};

/// A bidirectional byte stream: TCP, TLS, or a stream through a proxy.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
