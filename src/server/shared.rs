//! The state that all connections of a server share.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::guess_limit::GuessLimit;
use super::names::Names;
use super::rates::Rates;
use super::sessions::Sessions;
use super::switchboard::Switchboard;
use super::timeouts::Timeouts;
use super::tls::Identity;
use super::token::{self, Denied, TokenError, Tokens};
use super::trusted::Trusted;
use crate::base::net::{Owner, is_this_machine};
use crate::base::secret::Sealed;
use crate::base::tasks::Tasks;
use crate::hub::Grant;

#[derive(Debug)]
pub(super) struct Shared {
    /// The tasks of the connections; the server owns them.
    pub(super) connections: Weak<Tasks>,
    pub(super) board: Arc<Switchboard>,
    pub(super) identity: Option<Identity>,
    pub(super) plain: bool,
    pub(super) allowed_origins: Vec<String>,
    pub(super) names: Names,
    pub(super) per_address: usize,
    pub(super) trusted: Trusted,
    /// The requests of clients behind trusted proxies, whose connections carry the requests of many.
    pub(super) requests: Rates<Owner>,
    pub(super) timeouts: Timeouts,
    pub(super) api_secret: Option<Sealed>,
    pub(super) api_guesses: GuessLimit,
    pub(super) api_remote: bool,
    pub(super) tokens: Option<Tokens>,
    pub(super) token_guesses: GuessLimit,
    pub(super) sessions: Sessions,
}

impl Shared {
    /// Returns the permissions of a request from the address `from`, according to its token.
    pub(super) async fn grant<B>(&self, request: &hyper::Request<B>, from: IpAddr) -> Result<Grant, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Grant::default()) };
        let token = token::shown(request).ok_or(TokenError::Missing)?;
        let wait = self.token_guesses.wait(from.into());
        // A proxy on this machine serves many clients: wrong tokens of one client must not block the good tokens of
        // others.
        if let Some(wait) = wait.filter(|_| !is_this_machine(from)) {
            return Err(Denied::Later(wait));
        }
        let grant = tokens.read(&token).await;
        if let Err(TokenError::Forged(_)) = grant {
            self.token_guesses.record(from.into());
            if let Some(wait) = wait {
                return Err(Denied::Later(wait));
            }
        }
        Ok(grant?)
    }

    /// Returns whether the server's certificate covers a host name.
    pub(super) fn is_certified(&self, name: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.holds_for(name))
    }
}
