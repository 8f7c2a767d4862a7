//! Watch over the path of a connection: the path counts as broken if nothing arrives from the peer for a while. Our
//! side tries to replace a broken path for a limited time, and then gives up.

use std::time::{Duration, Instant};

/// Maximum silence of a peer that left the server: such a peer most likely ended the call.
const GONE: Duration = Duration::from_millis(1500);
/// Maximum silence after a change of the local network.
const CHANGED: Duration = Duration::from_millis(1500);
/// Factor of the maximum silence for a peer that sends no media, only reports every few seconds (RFC 3550, 6.2);
/// applies until the interval of the reports is known.
const REPORTS: u32 = 3;
/// Number of reports after which their interval is known.
const KNOWN: u32 = 4;
/// Time that the other side has for the first attempt to reconnect, if it reconnects first.
const OTHER_SIDE: Duration = Duration::from_secs(8);
/// Pause from a failed attempt to the next one.
const AGAIN: Duration = Duration::from_secs(1);
/// Maximum time since the previous break of a path that counts as a repeated break. After a repeated break the attempt
/// waits, twice as long each time.
const SOON: Duration = Duration::from_secs(10);
/// Maximum of this wait.
const LONGEST: Duration = Duration::from_secs(8);

/// Time limits of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Silence of a peer that sends media, after which the path counts as broken.
    pub quiet: Duration,
    /// Time from the break until the path is given up.
    pub give_up: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(4), give_up: Duration::from_secs(30) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Not connected yet.
    New,
    /// Connected; has the time at which the silence is too long, once a packet arrived.
    Up(Option<Instant>),
    /// Broken since this time; has the time of the next attempt to reconnect, unless one is under way.
    Broken(Instant, Option<Instant>),
}

/// An action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The peer left the server and is silent.
    PeerGone,
    /// The path broke.
    Broken,
    /// An attempt to reconnect is due.
    Reconnect,
    /// The path was broken for too long.
    GiveUp,
}

/// State of the watch over one connection.
#[derive(Debug)]
pub struct Watch {
    patience: Patience,
    /// Whether this side reconnects first.
    reconnects_first: bool,
    /// Whether messages reach the peer.
    reachable: bool,
    /// Whether the server reported that the peer left.
    gone: bool,
    path: Path,
    /// When the last packet of the peer arrived.
    last: Option<Instant>,
    /// Number of reports since media arrived or the path changed, and the longest pause between two of them.
    reports: (u32, Duration),
    /// Time of the last break, and how long the attempt after it waited.
    broke: Option<(Instant, Duration)>,
}

impl Watch {
    /// Returns the watch over a call that begins.
    pub fn new(patience: Patience, reconnects_first: bool) -> Self {
        let reports = (0, Duration::ZERO);
        Self {
            patience,
            reconnects_first,
            reachable: true,
            gone: false,
            path: Path::New,
            last: None,
            reports,
            broke: None,
        }
    }

    /// Returns whether the path was connected once.
    pub fn was_connected(&self) -> bool {
        self.path != Path::New
    }

    /// Returns whether the path is connected.
    pub fn is_up(&self) -> bool {
        matches!(self.path, Path::Up(_))
    }

    /// Returns whether the path broke and no other was found yet.
    pub fn is_broken(&self) -> bool {
        matches!(self.path, Path::Broken(..))
    }

    /// Returns whether this side reconnects first.
    pub fn reconnects_first(&self) -> bool {
        self.reconnects_first
    }

    /// Returns whether messages reach the peer.
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Handles that the path is connected, for the first time or again.
    pub fn connected(&mut self) {
        self.path = Path::Up(None);
        (self.last, self.reports) = (None, (0, Duration::ZERO));
    }

    /// Handles a packet of the peer; `media` is false for a mere report.
    pub fn heard(&mut self, now: Instant, media: bool) {
        let pause = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let (count, longest) = self.reports;
        self.reports = if media { (0, Duration::ZERO) } else { (count + 1, longest.max(pause)) };
        let quiet = if self.gone { GONE } else { self.quiet() };
        if let Path::Up(due) = &mut self.path {
            *due = Some(now + quiet);
        }
    }

    /// Returns whether packets of the peer arrive, though the path may count as broken.
    pub fn is_heard(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last + self.quiet())
    }

    /// Returns the maximum silence of a peer that did not leave the server.
    fn quiet(&self) -> Duration {
        let Patience { quiet, .. } = self.patience;
        match self.reports {
            (0, _) => quiet,
            (1..KNOWN, _) => quiet * REPORTS,
            (KNOWN.., longest) => (longest * 2).clamp(quiet, quiet * REPORTS),
        }
    }

    /// Handles that the path is broken, or that an attempt to reconnect failed. Returns true if the path was not broken
    /// before; otherwise plans the next attempt.
    pub fn broken(&mut self, now: Instant) -> bool {
        match &mut self.path {
            Path::Broken(_, attempt) => {
                if attempt.is_none() && self.reconnects_first {
                    *attempt = Some(now + AGAIN);
                }
                false
            }
            Path::New | Path::Up(_) => {
                let wait = match self.broke {
                    Some((before, waited)) if now.saturating_duration_since(before) < SOON + waited => {
                        (waited * 2).clamp(AGAIN, LONGEST)
                    }
                    _ => Duration::ZERO,
                };
                self.broke = Some((now, wait));
                let attempt = if self.reconnects_first { now } else { now + OTHER_SIDE } + wait;
                self.path = Path::Broken(now, Some(attempt));
                true
            }
        }
    }

    /// Handles that an attempt to reconnect is under way, of either side; its failure is reported by [`Watch::broken`].
    pub fn reconnecting(&mut self) {
        if let Path::Broken(_, attempt) = &mut self.path {
            *attempt = None;
        }
    }

    /// Handles that the server reports that the peer left. The peer's media may go on.
    pub fn peer_gone(&mut self, now: Instant) {
        (self.gone, self.reachable) = (true, false);
        if let Path::Up(due) = &mut self.path {
            *due = Some(due.unwrap_or(now + GONE).min(now + GONE));
        }
    }

    /// Handles that messages reach the peer from now on, or no longer do because the server is lost.
    pub fn reachable(&mut self, now: Instant, reachable: bool) {
        self.reachable = reachable;
        if reachable {
            self.gone = false;
            if let (Path::Broken(_, attempt), true) = (&mut self.path, self.reconnects_first) {
                *attempt = Some(now);
            }
        }
    }

    /// Handles a change of the local network.
    pub fn network_changed(&mut self, now: Instant) {
        match &mut self.path {
            Path::Up(Some(due)) => *due = (*due).min(now + CHANGED),
            Path::Broken(_, attempt) => *attempt = Some(now),
            Path::New | Path::Up(None) => {}
        }
    }

    /// Returns when [`Watch::due`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.path {
            Path::New => None,
            Path::Up(due) => due,
            Path::Broken(since, attempt) => {
                let attempt = attempt.filter(|_| self.reachable);
                Some(
                    attempt.map_or(since + self.patience.give_up, |at| at.min(since + self.patience.give_up)),
                )
            }
        }
    }

    /// Returns the action that is due by now.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        match self.path {
            Path::Up(Some(due)) if due <= now => Some(if self.gone { Due::PeerGone } else { Due::Broken }),
            Path::Broken(since, _) if since + self.patience.give_up <= now => Some(Due::GiveUp),
            Path::Broken(_, Some(attempt)) if attempt <= now && self.reachable => Some(Due::Reconnect),
            Path::New | Path::Up(_) | Path::Broken(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_reconnect_a_path_that_breaks_repeatedly_wait_longer_each_time() {
        let (mut watch, mut now) = (Watch::new(Patience::default(), true), Instant::now());
        let mut waits = vec![];
        for _ in 0..6 {
            watch.connected();
            now += Duration::from_millis(100);
            assert!(watch.broken(now));
            let due = watch.poll_timeout().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 8]);
        // A path that was connected for a while is replaced at once.
        watch.connected();
        now += Duration::from_secs(60);
        assert!(watch.broken(now));
        assert_eq!(watch.poll_timeout(), Some(now));
    }
}
