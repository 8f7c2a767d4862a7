//! Sends to an endpoint of WHIP, or receives from one of WHEP: a call with a media server that lasts until the user ends it.

use std::time::{Duration, Instant};

use super::call::CallEnd;
use super::client::Client;
use super::error::ClientError;
use super::server_connection::ServerConnection;
use crate::protocol::PeerId;
use crate::session::call::Call;
use crate::session::{Patience, Terms};
use crate::signalling::Registration;

/// Time limit for steps whose end the user alone decides: ten years.
const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Client {
    /// Sends to the endpoint that is the client's target, or receives from it, until the user ends the program. A path that
    /// breaks is followed by a new session; sources, outputs and recordings go on.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the first offer fails, or the first session finds no path. Later failures are repeated, apart from
    /// a token that ended, an answer that cannot be applied, another DTLS certificate than that in the answer, a source that
    /// stops for good, and a path that is not replaced within [`ConnectionOptions::give_up_after`](super::options::ConnectionOptions::give_up_after) (default: no limit).
    pub async fn stream(&self) -> Result<(), ClientError> {
        let result = self.stream_until_stopped().await;
        self.finish().await;
        result
    }

    async fn stream_until_stopped(&self) -> Result<(), ClientError> {
        let server = PeerId::from_foreign(&self.target.host_name()).unwrap_or_else(|_| PeerId::caller());
        let registration = Registration { id: self.id.clone(), calls: None, room: None };
        let (target, ice, sink) = (self.target.clone(), self.setup.ice.clone(), self.sink.clone());
        let mut connection = ServerConnection::open(target, registration, ice, sink).await?;
        let terms = self.setup.terms();
        let give_up = self.setup.give_up().unwrap_or(UNLIMITED);
        let patience = Patience { give_up, ..terms.patience };
        let terms =
            Terms { ring: UNLIMITED, patience, single_exchange: true, reconnects_first: true, ..terms };
        let call = Call::dial(Instant::now(), server.clone(), false, terms);
        let end = self.run_call(&mut connection, call, Some(&server)).await;
        connection.close().await;
        match end? {
            CallEnd::Quit => Ok(()),
            CallEnd::Call(reason, was_connected, _) => super::call::outcome(reason, was_connected),
        }
    }
}
