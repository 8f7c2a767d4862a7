//! Rates: the bandwidth estimate of a connection, and its division among senders and retransmissions.

mod correction;
pub(crate) mod estimator;
mod path_quality;
mod retransmissions;
