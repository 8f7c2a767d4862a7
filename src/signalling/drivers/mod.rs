//! The sockets of signalling: [`driver`] executes a signaller by [`websocket`] and [`http`]; below both are TCP, proxies and TLS. No driver knows what the messages mean.

mod dial;
pub mod driver;
pub mod http;
pub mod websocket;
