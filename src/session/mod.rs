//! A client's call as pure state machines: input in, output out, time as an argument.
//!
//! [`negotiation`] exchanges descriptions and candidates for one connection, by [`effect`]s; [`link`] is the connection
//! with one peer and its timers; [`call`] is a 1-1 call, from dialling to its end, and [`room`] a room. Their inputs and
//! outputs are in [`io`]. An effect and its result have the same id; a result for which no step waits is ignored.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// Without wildcard arms the compiler names each place that has to handle a new message.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod call;
pub mod candidate_summary;
pub mod delivery;
pub mod effect;
pub mod filter;
pub mod io;
pub mod link;
pub mod negotiation;
pub mod participants;
pub mod room;
pub mod terms;
pub mod watch;

pub use call::{Admission, Call};
pub use effect::{Effect, EffectId};
pub use io::{ConnectionState, EndReason, Input, Output};
pub use link::Link;
pub use negotiation::Negotiation;
pub use participants::{Participant, Participants};
pub use room::Room;
pub use terms::Terms;
pub use watch::Patience;

use std::time::Duration;

/// Maximum time of each step of a call; after this time the call ends with an error that names the step.
pub const STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
