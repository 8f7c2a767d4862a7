//! The port of the metrics, apart from that of the clients: it is not meant for everybody.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use smol::Async;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::http::reply::{Reply, text};
use super::switchboard::Switchboard;
use crate::base::tasks::Tasks;
use crate::base::timeout::timeout;

/// The most connections at a time.
const CONNECTIONS: usize = 16;
/// The longest time of one connection, which serves one request.
const REQUEST: Duration = Duration::from_secs(10);
/// The media type of the text.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A listening port.
#[derive(Debug)]
pub(super) struct MetricsPort(Async<TcpListener>);

impl MetricsPort {
    pub(super) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Async::<TcpListener>::bind(address).map(Self)
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.get_ref().local_addr().ok()
    }

    /// Serves `GET /metrics`. Never completes.
    pub(super) async fn serve(&self, board: &Arc<Switchboard>) {
        let tasks = Tasks::new(CONNECTIONS);
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    tasks.spawn(serve_one(stream, board.clone()));
                }
                Err(error) => {
                    tracing::warn!("a connection for the metrics cannot be accepted: {error}");
                    smol::Timer::after(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve_one(stream: Async<TcpStream>, board: Arc<Switchboard>) {
    let service = service_fn(|request| {
        let reply = answer(&request, &board);
        async move { Ok::<_, Infallible>(reply) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(SmolTimer::new())
        .keep_alive(false)
        .serve_connection(FuturesIo::new(stream), service);
    timeout(REQUEST, connection).await;
}

fn answer(request: &Request<Incoming>, board: &Switchboard) -> Reply {
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
    }
    let mut reply = text(StatusCode::OK, board.metrics_text());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
    reply
}
