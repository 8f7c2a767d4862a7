//! Helpers that every layer uses and that know nothing of calls, one file each.
//!
//! `base` imports no other layer of this crate.

pub mod backoff;
pub mod files;
pub mod flag;
pub mod limit;
pub mod lock;
pub mod net;
pub mod random;
pub mod secret;
pub mod stream;
pub mod tasks;
pub mod text;
pub mod timeout;
pub mod zone;
