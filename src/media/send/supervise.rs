//! Restarts sources that ended: black or silence is sent meanwhile, and the pauses between attempts grow.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use smol::channel::Sender;

use super::capture::{Capture, End, SourceConfig};
use super::encode::Encoders;
use crate::base::backoff::Backoff;
use crate::media::gst::error::MediaError;
use crate::media::gst::pipeline;
use crate::sdp::Kind;

/// Pause before the first attempt to restart a source.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum pause, which also bounds how late a restarted camera is found again.
const LONGEST: Duration = Duration::from_secs(30);
/// Running time after which a source's backoff starts over.
const HELD: Duration = Duration::from_secs(30);
/// Interval of the checks whether a source allows passthrough.
const PROOF: Duration = Duration::from_millis(500);

/// Backoff of one source.
#[derive(Debug)]
struct Schedule {
    backoff: Backoff,
    /// Time at which the source started last.
    started: Option<Instant>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { backoff: Backoff::new(FIRST, LONGEST), started: Some(now) }
    }

    fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// Returns the pause after an end or a failed attempt; `chance` (0 to 1) shortens it by up to a half.
    fn pause(&mut self, now: Instant, chance: f64) -> Duration {
        let ran = self.started.take().map(|started| now.saturating_duration_since(started));
        if ran.is_some_and(|ran| ran >= HELD) {
            self.backoff.reset();
        }
        self.backoff.next_pause(chance)
    }
}

/// Starts sources in parallel, at most one of each kind. A kind that a file or camera lacks is reported and left out if
/// another kind remains. A network camera that is not available yet is replaced by black or silence until it is.
///
/// # Errors
///
/// Returns the first error of a source that cannot be started, and [`MediaError::NoMedia`] if no source has the media
/// that is wanted of it.
pub(crate) async fn start(
    sources: &[(Kind, SourceConfig)],
    failures: &Sender<String>,
) -> Result<Vec<Capture>, MediaError> {
    let start =
        async |(kind, config): &(Kind, SourceConfig)| match Capture::start(*kind, config, failures.clone())
            .await
        {
            Err(error) if may_come(config, &error) => {
                let end = Some(End::Absent(error.to_string()));
                Capture::stand_in(*kind, config, end, failures.clone()).await
            }
            started => started,
        };
    let all = futures_util::future::join_all(sources.iter().map(start)).await;
    let (mut captures, mut lacks) = (vec![], vec![]);
    for started in all {
        match started {
            Ok(capture) => captures.push(capture),
            Err(error @ MediaError::NoMedia { .. }) => lacks.push(error),
            Err(error) => return Err(error),
        }
    }
    if captures.is_empty() && !lacks.is_empty() {
        return Err(lacks.remove(0));
    }
    for error in lacks {
        let _ = failures.try_send(format!("{error}: none is sent"));
    }
    Ok(captures)
}

/// Returns whether a source that did not start may become available later: true for a network camera, unless it rejects
/// the credentials.
fn may_come(config: &SourceConfig, error: &MediaError) -> bool {
    matches!(error, MediaError::Source { reason, .. }
        if config.is_network() && !reason.contains(pipeline::NOT_AUTHORIZED))
}

/// Starts the tasks that restart the sources of these encoders; the tasks end with the encoders.
pub(crate) fn watch(encoders: &Arc<Encoders>, failures: &Sender<String>) -> Vec<smol::Task<()>> {
    let kinds = Kind::ALL.into_iter().filter(|kind| encoders.has(*kind));
    let ends = kinds.map(|kind| smol::spawn(watch_source(Arc::downgrade(encoders), kind, failures.clone())));
    ends.chain([smol::spawn(prove(Arc::downgrade(encoders)))]).collect()
}

async fn prove(encoders: Weak<Encoders>) {
    let mut held = None;
    while let Some(encoders) = encoders.upgrade() {
        held = encoders.prove(held);
        drop(encoders);
        smol::Timer::after(PROOF).await;
    }
}

/// Waits for the end of each source of a kind, and restarts the source.
async fn watch_source(encoders: Weak<Encoders>, kind: Kind, failures: Sender<String>) {
    let mut schedule = Schedule::new(Instant::now());
    while let Some((id, ended, config)) = encoders.upgrade().and_then(|encoders| encoders.source(kind)) {
        let end = ended.recv().await;
        let name = config.name(kind);
        let report = |text: String| drop(failures.try_send(text));
        match end {
            Ok(End::Stopped(reason)) => report(format!("{name} has stopped: {reason}; trying again")),
            Ok(End::Absent(reason)) => report(format!("{reason}; trying again")),
            Ok(End::Finished) => {
                report(format!("{name} has ended"));
                continue;
            }
            Ok(End::Again) => match open_again((&encoders, id), kind, (&config, &failures)).await {
                Ok(_) => continue,
                Err(error) => report(format!("{error}; trying again")),
            },
            // Another source has replaced it already.
            Err(_) => continue,
        }
        let back = restart((&encoders, id), kind, (&config, &failures), &mut schedule).await;
        match back {
            Ok(true) => report(format!("{name} is back")),
            Ok(false) => {}
            Err(error) => report(error.to_string()),
        }
    }
}

/// Replaces a source by a new one of the same configuration.
async fn open_again(
    (encoders, id): (&Weak<Encoders>, u64),
    kind: Kind,
    (config, failures): (&SourceConfig, &Sender<String>),
) -> Result<bool, MediaError> {
    replace(encoders, id, Capture::start(kind, config, failures.clone()).await?)
}

/// Replaces a source by black or silence, and retries until the source starts. Returns false if another source took its
/// place meanwhile.
async fn restart(
    (encoders, id): (&Weak<Encoders>, u64),
    kind: Kind,
    (config, failures): (&SourceConfig, &Sender<String>),
    schedule: &mut Schedule,
) -> Result<bool, MediaError> {
    let stand_in = Capture::stand_in(kind, config, None, failures.clone()).await?;
    let place = stand_in.id();
    if !replace(encoders, id, stand_in)? {
        return Ok(false);
    }
    loop {
        smol::Timer::after(schedule.pause(Instant::now(), fastrand::f64())).await;
        let is_waiting = |encoders: Arc<Encoders>| encoders.source(kind).is_some_and(|(id, ..)| id == place);
        if !encoders.upgrade().is_some_and(is_waiting) {
            return Ok(false);
        }
        match Capture::start(kind, config, failures.clone()).await {
            Ok(capture) => {
                schedule.started(Instant::now());
                return replace(encoders, place, capture);
            }
            Err(error @ MediaError::NoMedia { .. }) => return Err(error),
            Err(error) => tracing::debug!("not yet: {error}"),
        }
    }
}

/// Replaces the source with this number; returns false if it has been replaced already.
fn replace(encoders: &Weak<Encoders>, id: u64, capture: Capture) -> Result<bool, MediaError> {
    let Some(encoders) = encoders.upgrade() else { return Ok(false) };
    encoders.replace_if(capture, Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_source_has_run_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::new(start);
        let pause = |schedule: &mut Schedule, now| schedule.pause(at(now), 0.0).as_secs();
        assert_eq!([1, 2, 4].map(|now| pause(&mut schedule, now)), [1, 2, 4], "tries in vain");
        schedule.started(at(10));
        assert_eq!(pause(&mut schedule, 12), 8, "it ran for a moment only");
        schedule.started(at(20));
        assert_eq!(pause(&mut schedule, 20 + HELD.as_secs()), 1);
        assert_eq!((0..10).map(|_| pause(&mut schedule, 60)).max(), Some(LONGEST.as_secs()));
    }

    #[test]
    fn only_network_cameras_that_accept_the_password_are_retried() {
        let error =
            |reason: &str| MediaError::Source { name: "x".into(), reason: reason.into(), there: None };
        let config = |name: &str| SourceConfig::named(name);
        assert!(may_come(&config("rtsp"), &error("no frame arrived within 10 s")));
        assert!(!may_come(&config("rtsp"), &error(pipeline::NOT_AUTHORIZED)));
        assert!(!may_come(&config("camera"), &error("no such device")));
        let missing = MediaError::MissingElement { element: "rtspsrc".into() };
        assert!(!may_come(&config("rtsp"), &missing));
    }
}
