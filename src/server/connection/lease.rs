//! The bounds of a connection: the end of its token, the renewal of the token, and the rate of its messages.

use std::time::Instant;

use super::{Driver, End};
use crate::protocol::hello::{ServerMessage, TOKEN_ENDED};
use crate::server::codec::framing::Framing;
use crate::server::expiry::{Admission, Due, Expiry, Refused};
use crate::server::mailbox::Outgoing;
use crate::server::metrics::Limit;

impl Driver<'_> {
    /// Counts a message, and stops reading the peer for a while if it sends too many.
    pub(super) fn slow_down(&mut self, now: Instant) {
        let Some(bucket) = &mut self.messages else { return };
        let wait = bucket.charge(now, 1);
        if !wait.is_zero() {
            self.board.metrics.count_limited(Limit::Messages);
            self.timers.pause(now, wait);
        }
    }

    /// Begins to verify the next token of the peer.
    pub(super) fn renew(&mut self, token: String) {
        match &self.verify {
            Some(verify) => self.renewal = Some(verify(token)),
            None => self.renewed(Err(refused("this server does not end connections with their tokens"))),
        }
    }

    /// Handles the verification of the peer's next token. The token before counts on if the next one is refused.
    pub(super) fn renewed(&mut self, renewed: Result<Admission, Refused>) {
        let answer = match renewed.and_then(|Admission { grant, until }| {
            self.board.renew(self.inbox.id, grant).map_err(refused)?;
            self.expiry = Expiry::new(until);
            Ok(())
        }) {
            Ok(()) => ServerMessage::TokenOk,
            Err(Refused { why, is_for_now }) => {
                if is_for_now {
                    self.expiry.repeat(Instant::now());
                }
                ServerMessage::TokenRefused(why)
            }
        };
        self.inbox.answer(Outgoing::Text(answer.to_string()));
    }

    /// Tells the peer that its permissions end soon, or ends the connection with them.
    pub(super) fn expire(&mut self, now: Instant) -> Option<End> {
        match self.expiry.due(now, self.timers.is_registered()) {
            Due::Nothing => {}
            Due::Notice(seconds) if matches!(self.framing, Framing::Extended) => {
                let notice = ServerMessage::TokenExpires(seconds);
                self.inbox.answer(Outgoing::Text(notice.to_string()));
            }
            Due::Notice(_) => {}
            Due::End => return Some(End::Close(1008, TOKEN_ENDED)),
        }
        None
    }
}

fn refused(why: impl Into<String>) -> Refused {
    Refused { why: why.into(), is_for_now: false }
}
