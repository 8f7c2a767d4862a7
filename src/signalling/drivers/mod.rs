//! The sockets of signalling: [`websocket`] and, below it, TCP, proxies and TLS. No driver knows what the messages mean.

mod dial;
pub mod websocket;
