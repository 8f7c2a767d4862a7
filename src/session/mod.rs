//! A client's call as pure state machines: input in, output out, time as an argument.
//!
//! [`negotiation`] exchanges descriptions and candidates for one connection; [`call`] is a 1-1 call
//! around it, from the dialling to its end. An effect carries an id, its result comes back with that
//! id, and a result whose id is no longer waited for is ignored.

// A new message must make the compiler ask what to do with it.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod call;
pub mod negotiation;

pub use call::Call;
pub use negotiation::{Effect, EffectId, EffectResult, Negotiation, Remote};

use std::time::Duration;

/// How long each step of a call may take before the call ends, saying which step it was.
pub const STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
