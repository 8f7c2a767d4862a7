//! Small things that every layer needs and that know nothing of calls: each has a file of its own.
//!
//! `base` imports no other layer of this crate.

pub mod backoff;
pub mod files;
pub mod limit;
pub mod net;
pub mod random;
pub mod secret;
pub mod text;
