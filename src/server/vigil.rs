//! What is due on one connection, and when. Pure: the time, and how the peer takes what it is sent, come in.

use std::time::{Duration, Instant};

use super::Timeouts;
use super::stream::Flow;

/// For so long after its socket took something, a peer whose answer does not come may have it still under way: before
/// the answer it has to take all that the system holds for it.
const RECENT: Duration = Duration::from_secs(10);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// A ping.
    Ping,
    /// What the peer sends has waited too long for its receiver.
    Refusal,
    /// The peer takes nothing of what it is sent.
    Unread,
    /// It gave no sign of life.
    Silent,
    /// It has not said who it is.
    Unknown,
}

/// What a probe that no answer came to means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// The peer took something meanwhile.
    Alive,
    /// The answer may still be under way.
    Later,
    Dead,
}

/// Watches over the times of one connection.
#[derive(Debug)]
pub(super) struct Vigil {
    timeouts: Timeouts,
    /// Until when it has to say who it is, where it has not.
    hello: Option<Instant>,
    heard: Instant,
    ping_at: Instant,
    /// Since when it is not read, because a receiver takes no more of what it sends.
    held: Option<Instant>,
    /// Until when it is not read, because it asked for too much.
    paused: Option<Instant>,
}

impl Vigil {
    pub(super) fn new(now: Instant, timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            hello: Some(now + timeouts.hello),
            heard: now,
            ping_at: now + timeouts.ping,
            held: None,
            paused: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.hello.is_none()
    }

    /// The peer has said who it is.
    pub(super) fn know(&mut self) {
        self.hello = None;
    }

    /// Something came of the peer.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The peer is not read until [`Vigil::release`].
    pub(super) fn hold(&mut self, now: Instant) {
        self.held = Some(now);
    }

    pub(super) fn release(&mut self, now: Instant) {
        self.held = None;
        // What came of it meanwhile is still to be read.
        self.heard = now;
    }

    /// The peer is not read for that time.
    pub(super) fn pause(&mut self, now: Instant, time: Duration) {
        self.paused = Some(now + time);
    }

    pub(super) fn may_read(&self) -> bool {
        self.held.is_none() && self.paused.is_none()
    }

    /// What is due now.
    pub(super) fn due(&mut self, now: Instant, flow: Flow) -> Due {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.heard = now;
        }
        if is_over(flow.blocked, self.timeouts.unread, now) {
            return Due::Unread;
        }
        if self.hello.is_some_and(|until| until <= now) {
            return Due::Unknown;
        }
        if is_over(self.held, self.timeouts.held, now) {
            return Due::Refusal;
        }
        // A peer that takes what it is sent lives, though its answers to pings wait behind that.
        let sign = flow.relieved.map_or(self.heard, |at| at.max(self.heard));
        if self.may_read() && is_over(Some(sign), self.timeouts.silence, now) {
            return Due::Silent;
        }
        if self.is_known() && self.ping_at <= now {
            self.ping_at = now + self.timeouts.ping;
            return Due::Ping;
        }
        Due::Nothing
    }

    /// When [`Vigil::due`] is to be asked again.
    pub(super) fn next(&self, flow: Flow) -> Instant {
        let waits = [
            self.paused,
            self.hello,
            flow.blocked.map(|since| since + self.timeouts.unread),
            self.held.map(|since| since + self.timeouts.held),
        ];
        let ping = if self.is_known() { self.ping_at } else { self.heard + self.timeouts.silence };
        waits.into_iter().flatten().fold(ping, Instant::min)
    }
}

fn is_over(since: Option<Instant>, time: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= time)
}

/// What it means that a probe at the time `probed` has no answer yet. A peer on a slow line that others flood is not
/// dead: the probe, or its answer, is still on the way. Only a peer that takes nothing for as long as `unread` is.
pub(super) fn judge(flow: Flow, probed: Instant, now: Instant, unread: Duration) -> Probed {
    if flow.relieved.is_some_and(|at| at > probed) {
        return Probed::Alive;
    }
    let is_blocked = flow.blocked.is_some() && !is_over(flow.blocked, unread, now);
    match is_blocked || flow.relieved.is_some_and(|at| !is_over(Some(at), RECENT, now)) {
        true => Probed::Later,
        false => Probed::Dead,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: Flow = Flow { blocked: None, relieved: None };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_time_has_its_consequence() {
        let (start, timeouts) = (Instant::now(), Timeouts::default());
        let mut vigil = Vigil::new(start, timeouts);
        assert_eq!(vigil.next(FREE), start + timeouts.hello);
        assert_eq!(vigil.due(start + timeouts.hello, FREE), Due::Unknown);
        vigil.know();
        assert_eq!(vigil.next(FREE), start + timeouts.ping);
        assert_eq!(vigil.due(start + timeouts.ping, FREE), Due::Ping);
        assert_eq!(vigil.due(start + timeouts.ping, FREE), Due::Nothing, "one ping at a time");
        assert_eq!(vigil.due(start + timeouts.silence, FREE), Due::Silent);

        // While it is not read, it cannot be heard.
        vigil.hold(start);
        assert_eq!(vigil.next(FREE), start + timeouts.held);
        assert_eq!(vigil.due(start + timeouts.held, FREE), Due::Refusal);
        vigil.release(start + timeouts.silence);
        assert_eq!(vigil.due(start + timeouts.silence, FREE), Due::Ping);
        vigil.pause(start + timeouts.silence, seconds(3));
        assert!(!vigil.may_read());
        assert_eq!(vigil.next(FREE), start + timeouts.silence + seconds(3));
        vigil.due(start + timeouts.silence + seconds(3), FREE);
        assert!(vigil.may_read());
    }

    #[test]
    fn a_probe_is_judged_by_what_the_peer_takes() {
        let (start, unread) = (Instant::now(), seconds(20));
        let now = start + seconds(2);
        let judge = |flow: Flow| judge(flow, start, now, unread);
        assert_eq!(judge(FREE), Probed::Dead);
        assert_eq!(judge(Flow { relieved: Some(start + seconds(1)), ..FREE }), Probed::Alive);
        assert_eq!(judge(Flow { relieved: Some(start), ..FREE }), Probed::Later);
        assert_eq!(judge(Flow { blocked: Some(start), ..FREE }), Probed::Later);
        let before = start.checked_sub(seconds(19)).unwrap();
        assert_eq!(judge(Flow { blocked: Some(before), relieved: Some(before) }), Probed::Dead);
    }

    proptest! {
        /// A peer that takes something now and then stays, however much it is sent and however long its answers take;
        /// one that takes nothing goes after the time that it has.
        #[test]
        fn only_a_peer_that_takes_nothing_goes(pauses in prop::collection::vec(0..19_500_u64, 1..40)) {
            let timeouts = Timeouts::default();
            let mut now = Instant::now();
            let mut vigil = Vigil::new(now, timeouts);
            vigil.know();
            let mut flow = Flow { blocked: Some(now), relieved: None };
            for pause in pauses {
                let relief = now + Duration::from_millis(pause);
                while vigil.next(flow) <= relief {
                    now = vigil.next(flow);
                    let due = vigil.due(now, flow);
                    prop_assert!(matches!(due, Due::Nothing | Due::Ping), "{due:?}");
                    prop_assert_ne!(judge(flow, now, now, timeouts.unread), Probed::Dead);
                }
                now = relief;
                flow = Flow { blocked: Some(now), relieved: Some(now) };
            }
            let until = now + timeouts.unread;
            while now < until {
                now = vigil.next(flow);
                let due = vigil.due(now, flow);
                prop_assert_eq!(due == Due::Unread, now >= until);
            }
            prop_assert_eq!(judge(flow, now, now, timeouts.unread), Probed::Dead);
        }
    }
}
