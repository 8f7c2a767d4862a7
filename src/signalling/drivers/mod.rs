//! The sockets of signalling: [`websocket`] and [`http`] and, below both, TCP, proxies and TLS. No driver knows what the messages mean.

mod dial;
pub mod http;
pub mod websocket;
