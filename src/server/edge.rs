//! What a connection speaks, between its text and the hub. Pure.

use super::room::{self, Rejection};
use super::ssp::Endpoint;
use crate::hub::{Command, Notice, Phase, Reason};
use crate::protocol::PeerId;

/// A connection's protocol, and where it stands in it.
#[derive(Debug)]
pub(super) enum Edge {
    /// The room protocol; with roomtone's additions or without.
    Room { extended: bool },
    /// ssp.
    Ssp(Endpoint),
}

impl Edge {
    /// Of the path that was asked for: ssp has one of its own.
    pub(super) fn of(path: &str, extended: bool) -> Self {
        match path.trim_end_matches('/') {
            "/ssp" => Self::Ssp(Endpoint::default()),
            _ => Self::Room { extended },
        }
    }

    /// The client asked for what only roomtone says.
    pub(super) fn is_extended(&self) -> bool {
        matches!(self, Self::Room { extended: true })
    }

    pub(super) fn decode(&mut self, phase: Phase, line: String) -> Result<Vec<Command>, Rejection> {
        /// Long enough that none comes twice.
        fn fresh_id() -> Option<PeerId> {
            format!("{:032x}", fastrand::u128(..)).parse().ok()
        }
        match self {
            Self::Room { .. } => room::decode(phase, line).map(|command| vec![command]),
            Self::Ssp(endpoint) => endpoint.decode(&line, fresh_id),
        }
    }

    /// What becomes of a message that is not text.
    pub(super) fn binary(&mut self) -> Rejection {
        match self {
            Self::Room { .. } => {
                Rejection::Error("ERROR binary messages are not part of this protocol".to_owned())
            }
            // No text at all is no JSON.
            Self::Ssp(endpoint) => match endpoint.decode("", || None) {
                Err(rejection) => rejection,
                Ok(_) => Rejection::Close(1003, "text only"),
            },
        }
    }

    pub(super) fn encode(&mut self, notice: Notice) -> Vec<String> {
        match self {
            Self::Room { extended } => room::encode(notice, *extended).into_iter().collect(),
            Self::Ssp(endpoint) => endpoint.encode(notice),
        }
    }

    /// The close code and words of an end that the hub decided.
    pub(super) fn close(reason: Reason) -> (u16, &'static str) {
        room::close(reason)
    }
}
