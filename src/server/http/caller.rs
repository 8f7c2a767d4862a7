//! The client of a request, which may come through a proxy.

use std::net::IpAddr;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::polling::is_path as is_polling;
use super::reply::{Reply, text, too_often};
use crate::base::net::is_this_machine;
use crate::server::metrics::Limit;
use crate::server::shared::Shared;

/// The client of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// The client's address.
    pub(super) address: IpAddr,
    /// The address of the connection: another one than the client's for a trusted proxy.
    pub(super) connection: IpAddr,
}

impl Caller {
    /// Returns whether the connection is counted for the client's address, as opposed to that of a proxy.
    pub(super) fn is_counted(self) -> bool {
        self.address == self.connection
    }
}

/// Returns the client of a request on a connection from the address `from`, or the response that refuses the request.
pub(super) fn caller(
    request: &Request<Incoming>,
    shared: &Shared,
    from: IpAddr,
) -> Result<Caller, Box<Reply>> {
    let address = shared.live().trusted.client(from, request.headers()).map_err(|why| {
        tracing::warn!("a request of the proxy {from} is refused: {why}");
        Box::new(text(StatusCode::BAD_REQUEST, format!("{why}\n")))
    })?;
    let is_limited = !is_this_machine(address) && !is_polling(request.uri().path());
    if address != from && is_limited && shared.requests.take(Instant::now(), &address.into()).is_err() {
        shared.board.metrics.count_limited(Limit::Requests);
        return Err(Box::new(too_often()));
    }
    Ok(Caller { address, connection: from })
}
