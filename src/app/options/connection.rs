//! Options that supervise a client's connections.

use std::time::Duration;

use clap::ArgAction;

use crate::base::flag::Flag;
use crate::session::Patience;

/// Supervision of a client's connections.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// Longest silence of a peer before a new path is sought, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub reconnect_after: u32,
    /// Longest search for a new path before the call ends, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub give_up_after: Option<u32>,
    /// Interval between reports of the call's counters, in seconds [default: off]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub stats: Option<Duration>,
    /// Report each step of a call's set-up, with the time since the start
    #[arg(long, action = ArgAction::SetTrue)]
    pub trace_setup: Flag,
}

impl ConnectionOptions {
    /// Returns the times after which a path of a call counts as broken and as lost.
    pub fn patience(&self) -> Patience {
        let give_up = self.give_up().unwrap_or(Patience::default().give_up);
        Patience { quiet: Duration::from_secs(self.reconnect_after.into()), give_up }
    }

    /// Returns the longest search for a new path; `None` if the default of the command applies.
    pub fn give_up(&self) -> Option<Duration> {
        self.give_up_after.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Returns the interval between reports of the counters; `None` if they are off.
    pub fn stats(&self) -> Option<Duration> {
        self.stats.filter(|interval| !interval.is_zero())
    }
}

/// Parses a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    number.ok_or_else(|| format!("'{text}' is not a number of seconds, as in 5 or 0.5"))
}
