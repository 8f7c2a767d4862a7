//! The timers of one connection: which action is due, and when. The time and the socket's progress are arguments.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

use super::timeouts::Timeouts;

/// The progress of a peer in reading the data sent to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// The time since when the socket has accepted no more data.
    pub(super) blocked: Option<Instant>,
    /// The last time at which the socket accepted data again after having been blocked.
    pub(super) relieved: Option<Instant>,
}

/// The time after the socket's last progress in which an answer to a probe may still be under way: the peer first reads
/// the data that the operating system holds for it.
const RECENT: Duration = Duration::from_secs(10);

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send a ping.
    Ping,
    /// Refuse the peer's messages, which have waited too long for their receiver.
    Refuse,
    /// Drop the peer, which reads nothing.
    Unread,
    /// Close the connection: the peer gave no sign of life.
    Silent,
    /// Close the connection: the peer has not registered.
    Unregistered,
}

/// The verdict on a peer that has not answered a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// The peer has read data since the probe.
    Alive,
    /// The answer may still be under way.
    Later,
    Dead,
}

/// Tracks the timeouts of one connection.
#[derive(Debug)]
pub(super) struct Timers {
    timeouts: Timeouts,
    /// The deadline for the registration; none once registered.
    register_by: Option<Instant>,
    received: Instant,
    ping_at: Instant,
    /// The time since when the peer is not read because a receiver has no space for its messages.
    held: Option<Instant>,
    /// The time until when the peer is not read because it asked for too much.
    paused: Option<Instant>,
}

impl Timers {
    pub(super) fn new(now: Instant, timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            register_by: Some(now + timeouts.hello),
            received: now,
            ping_at: now + timeouts.ping,
            held: None,
            paused: None,
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.register_by.is_none()
    }

    /// Records that the peer has registered.
    pub(super) fn register(&mut self) {
        self.register_by = None;
    }

    /// Records that data of the peer arrived.
    pub(super) fn receive(&mut self, now: Instant) {
        self.received = now;
    }

    /// Stops reading the peer until [`Timers::release`].
    pub(super) fn hold(&mut self, now: Instant) {
        self.held = Some(now);
    }

    pub(super) fn release(&mut self, now: Instant) {
        self.held = None;
        // Data that arrived meanwhile is still unread, so the silence starts anew.
        self.received = now;
    }

    /// Stops reading the peer for `time`.
    pub(super) fn pause(&mut self, now: Instant, time: Duration) {
        self.paused = Some(now + time);
    }

    pub(super) fn may_read(&self) -> bool {
        self.held.is_none() && self.paused.is_none()
    }

    /// Returns the action that is due at `now`.
    pub(super) fn due(&mut self, now: Instant, flow: Flow) -> Due {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.received = now;
        }
        if is_over(flow.blocked, self.timeouts.unread, now) {
            return Due::Unread;
        }
        if self.register_by.is_some_and(|until| until <= now) {
            return Due::Unregistered;
        }
        if is_over(self.held, self.timeouts.held, now) {
            return Due::Refuse;
        }
        // A peer that reads is alive, although its answers to pings wait behind the data sent to it.
        let sign = flow.relieved.map_or(self.received, |at| at.max(self.received));
        if self.may_read() && is_over(Some(sign), self.timeouts.silence, now) {
            return Due::Silent;
        }
        if self.is_registered() && self.ping_at <= now {
            self.ping_at = now + self.timeouts.ping;
            return Due::Ping;
        }
        Due::Nothing
    }

    /// Returns the time at which to call [`Timers::due`] again.
    pub(super) fn next(&self, flow: Flow) -> Instant {
        let waits = [
            self.paused,
            self.register_by,
            flow.blocked.map(|since| since + self.timeouts.unread),
            self.held.map(|since| since + self.timeouts.held),
        ];
        let ping = if self.is_registered() { self.ping_at } else { self.received + self.timeouts.silence };
        waits.into_iter().flatten().fold(ping, Instant::min)
    }
}

fn is_over(since: Option<Instant>, time: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= time)
}

/// Judges a peer that has not answered the probe sent at `probed`. The probe or its answer may be delayed on a slow
/// connection that others flood: the peer counts as dead only if its socket made no progress within [`RECENT`], and
/// either is not blocked or has been blocked for `unread`.
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
    fn each_timeout_has_its_action() {
        let (start, timeouts) = (Instant::now(), Timeouts::default());
        let mut timers = Timers::new(start, timeouts);
        assert_eq!(timers.next(FREE), start + timeouts.hello);
        assert_eq!(timers.due(start + timeouts.hello, FREE), Due::Unregistered);
        timers.register();
        assert_eq!(timers.next(FREE), start + timeouts.ping);
        assert_eq!(timers.due(start + timeouts.ping, FREE), Due::Ping);
        assert_eq!(timers.due(start + timeouts.ping, FREE), Due::Nothing, "one ping at a time");
        assert_eq!(timers.due(start + timeouts.silence, FREE), Due::Silent);

        // A peer that is not read cannot show signs of life.
        timers.hold(start);
        assert_eq!(timers.next(FREE), start + timeouts.held);
        assert_eq!(timers.due(start + timeouts.held, FREE), Due::Refuse);
        timers.release(start + timeouts.silence);
        assert_eq!(timers.due(start + timeouts.silence, FREE), Due::Ping);
        timers.pause(start + timeouts.silence, seconds(3));
        assert!(!timers.may_read());
        assert_eq!(timers.next(FREE), start + timeouts.silence + seconds(3));
        timers.due(start + timeouts.silence + seconds(3), FREE);
        assert!(timers.may_read());
    }

    #[test]
    fn a_probe_is_judged_by_the_progress_of_the_socket() {
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
        /// A peer that reads now and then stays, however much is sent and however late its answers are; a peer that
        /// reads nothing goes after `unread`.
        #[test]
        fn a_peer_that_reads_now_and_then_is_not_dropped(pauses in prop::collection::vec(0..19_500_u64, 1..40)) {
            let timeouts = Timeouts::default();
            let mut now = Instant::now();
            let mut timers = Timers::new(now, timeouts);
            timers.register();
            let mut flow = Flow { blocked: Some(now), relieved: None };
            for pause in pauses {
                let relief = now + Duration::from_millis(pause);
                while timers.next(flow) <= relief {
                    now = timers.next(flow);
                    let due = timers.due(now, flow);
                    prop_assert!(matches!(due, Due::Nothing | Due::Ping), "{due:?}");
                    prop_assert_ne!(judge(flow, now, now, timeouts.unread), Probed::Dead);
                }
                now = relief;
                flow = Flow { blocked: Some(now), relieved: Some(now) };
            }
            let until = now + timeouts.unread;
            while now < until {
                now = timers.next(flow);
                let due = timers.due(now, flow);
                prop_assert_eq!(due == Due::Unread, now >= until);
            }
            prop_assert_eq!(judge(flow, now, now, timeouts.unread), Probed::Dead);
        }
    }
}
