//! Whether a connection that stood still stands: nothing heard of the peer for a while means that its
//! path broke; a broken path is renewed for a limited time, and then given up.

use std::time::{Duration, Instant};

/// How long a peer may be silent that is gone from the server: it most likely ended.
const GONE: Duration = Duration::from_millis(1500);
/// A change of the local network asks for a sign of life within this time.
const CHANGED: Duration = Duration::from_millis(1500);
/// A peer that sends no media reports on ours only every few seconds (RFC 3550, 6.2): it may be silent for
/// so many times as long, until it is known how often it reports.
const REPORTS: u32 = 3;
/// After so many reports that is known.
const KNOWN: u32 = 4;
/// Time that the other side has to reconnect first.
const OTHER_SIDE: Duration = Duration::from_secs(8);
/// Interval between attempts to reconnect.
const AGAIN: Duration = Duration::from_secs(1);
/// A path that breaks again so soon will do so once more: the next one waits, twice as long each time.
const SOON: Duration = Duration::from_secs(10);
/// At most so long.
const LONGEST: Duration = Duration::from_secs(8);

/// How patient a call is with its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without a sign of life of a peer that sends media, until the path counts as broken.
    pub quiet: Duration,
    /// From there until it is given up.
    pub give_up: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(4), give_up: Duration::from_secs(30) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Not through yet, for the first time.
    New,
    /// Through; when the next sign of life is due, once there was one.
    Up(Option<Instant>),
    /// Since then; when to make a new one.
    Broken(Instant, Option<Instant>),
}

/// An action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The peer went, and its media too.
    PeerGone,
    /// The path broke.
    Broken,
    /// A new path is to be made.
    Reconnect,
    /// It was broken for too long.
    GiveUp,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    patience: Patience,
    /// Whether this side is the first of the two to make a new path.
    reconnects_first: bool,
    /// Messages reach the peer.
    reachable: bool,
    /// The server says that the peer is gone.
    gone: bool,
    path: Path,
    /// When the peer was last heard of.
    last: Option<Instant>,
    /// Reports since there was media or another path, and the longest pause between two of them.
    reports: (u32, Duration),
    /// When the path broke last, and what the next one waited for.
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

    /// The path was through once.
    pub fn was_connected(&self) -> bool {
        self.path != Path::New
    }

    /// The path is through.
    pub fn is_up(&self) -> bool {
        matches!(self.path, Path::Up(_))
    }

    /// Returns whether the path broke and no other was found yet.
    pub fn is_broken(&self) -> bool {
        matches!(self.path, Path::Broken(..))
    }

    /// Returns whether this side is the first of the two to make a new path.
    pub fn reconnects_first(&self) -> bool {
        self.reconnects_first
    }

    /// Messages reach the peer.
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// The path is through: for the first time, or again.
    pub fn connected(&mut self) {
        self.path = Path::Up(None);
        (self.last, self.reports) = (None, (0, Duration::ZERO));
    }

    /// A sign of life; of a peer that sends media, or only reports.
    pub fn heard(&mut self, now: Instant, media: bool) {
        let pause = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let (count, longest) = self.reports;
        self.reports = if media { (0, Duration::ZERO) } else { (count + 1, longest.max(pause)) };
        let quiet = if self.gone { GONE } else { self.quiet() };
        if let Path::Up(due) = &mut self.path {
            *due = Some(now + quiet);
        }
    }

    /// How long the peer may be silent.
    fn quiet(&self) -> Duration {
        let Patience { quiet, .. } = self.patience;
        match self.reports {
            (0, _) => quiet,
            (1..KNOWN, _) => quiet * REPORTS,
            (KNOWN.., longest) => (longest * 2).clamp(quiet, quiet * REPORTS),
        }
    }

    /// The path is known to be broken; false where it was before, and then the next attempt is due soon.
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

    /// A new path is being made, by whichever side; its failure is told by [`Watch::broken`].
    pub fn reconnecting(&mut self) {
        if let Path::Broken(_, attempt) = &mut self.path {
            *attempt = None;
        }
    }

    /// The server says that the peer is gone. Its media may go on.
    pub fn peer_gone(&mut self, now: Instant) {
        (self.gone, self.reachable) = (true, false);
        if let Path::Up(due) = &mut self.path {
            *due = Some(due.unwrap_or(now + GONE).min(now + GONE));
        }
    }

    /// Messages reach the peer, or do not, for lack of the server.
    pub fn reachable(&mut self, now: Instant, reachable: bool) {
        self.reachable = reachable;
        if reachable {
            self.gone = false;
            if let (Path::Broken(_, attempt), true) = (&mut self.path, self.reconnects_first) {
                *attempt = Some(now);
            }
        }
    }

    /// The local network changed.
    pub fn network_changed(&mut self, now: Instant) {
        match &mut self.path {
            Path::Up(Some(due)) => *due = (*due).min(now + CHANGED),
            Path::Broken(_, attempt) => *attempt = Some(now),
            Path::New | Path::Up(None) => {}
        }
    }

    /// When [`Watch::due`] wants to be asked.
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
    fn a_path_that_breaks_again_and_again_is_made_anew_ever_more_slowly() {
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
        // A path that stood for a while is renewed at once.
        watch.connected();
        now += Duration::from_secs(60);
        assert!(watch.broken(now));
        assert_eq!(watch.poll_timeout(), Some(now));
    }
}
