//! The recording of one participant. The tracks of a file are fixed once the recording has begun: a track that flows later
//! begins another file, with all tracks.

use std::path::Path;
use std::time::{Duration, Instant};

use smol::channel::Sender;

use crate::app::{Event, Sink};
use crate::media::MediaError;
use crate::media::receive::Track;
use crate::media::receive::recorder::{self, Recorder};

/// Maximum time that a recording waits for the tracks of the peer's description.
const ALL_TRACKS: Duration = Duration::from_secs(2);

/// Interval of the checks whether a running recording lacks a track that flows.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Recording {
    /// The participant's id.
    name: String,
    recorder: Option<Recorder>,
    /// Next time at which the recording begins with the tracks present by then, or, once it has begun, is checked for
    /// tracks that it lacks.
    check_at: Option<Instant>,
    /// Tasks that complete the files of earlier recordings.
    finishing: Vec<smol::Task<()>>,
    sink: Sink,
}

impl Recording {
    pub(super) fn new(name: String, sink: Sink) -> Self {
        Self { name, recorder: None, check_at: None, finishing: vec![], sink }
    }

    fn warn(&self, error: &MediaError) {
        (self.sink)(&Event::Warning { text: error.to_string() });
    }

    /// Returns the time at which [`Recording::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.check_at
    }

    /// Begins the recording with the tracks that are present. Returns whether the recording has begun already, so that
    /// the caller has to check it with [`Recording::update`].
    pub(super) fn handle_timeout(&mut self) -> bool {
        self.check_at = None;
        match self.recorder.as_ref().map(Recorder::has_begun) {
            Some(false) => {
                self.begin();
                false
            }
            Some(true) => {
                self.check_at = Some(Instant::now() + LOOK);
                true
            }
            None => false,
        }
    }

    /// Continues with `track` in place of `before`, whose connection was replaced; another codec needs another file.
    pub(super) fn follow(&mut self, before: &Track, track: &Track) {
        if before.codec != track.codec {
            self.finish();
        } else if let Some(recorder) = &mut self.recorder {
            recorder.switch(before, track);
        }
    }

    /// Records `live`, the tracks that flow, to a file in `folder`. The recording begins when as many tracks flow as the
    /// peer's description has.
    pub(super) fn update(
        &mut self,
        live: &[Track],
        announced: usize,
        folder: &Path,
        failed: &Sender<String>,
    ) {
        let lacks = |recorder: &Recorder| live.iter().any(|track| recorder.lacks(track));
        if self.recorder.as_ref().is_some_and(|one| one.has_begun() && !one.has_failed() && lacks(one)) {
            self.finish();
        }
        if self.recorder.is_none() && !live.is_empty() {
            self.open(folder, failed);
        }
        let mut errors = vec![];
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| !recorder.has_begun()) {
            for track in live.iter().filter(|track| recorder.lacks(track)).collect::<Vec<_>>() {
                errors.extend(recorder.add(track).err());
            }
            if live.len() >= announced {
                self.begin();
            }
        }
        errors.iter().for_each(|error| self.warn(error));
        live.iter().for_each(Track::flow);
    }

    fn open(&mut self, folder: &Path, failed: &Sender<String>) {
        let path = folder.join(recorder::file_name(&self.name, &timestamp()));
        match Recorder::open(&path, failed.clone()) {
            Ok(recorder) => {
                (self.sink)(&Event::recording(&self.name, recorder.path()));
                self.recorder = Some(recorder);
                self.check_at = Some(Instant::now() + ALL_TRACKS);
            }
            Err(error) => self.warn(&error),
        }
    }

    fn begin(&mut self) {
        self.check_at = Some(Instant::now() + LOOK);
        if let Some(Err(error)) = self.recorder.as_mut().map(Recorder::begin) {
            self.warn(&error);
        }
    }

    /// Completes the current file in a background task.
    pub(super) fn finish(&mut self) {
        self.check_at = None;
        if let Some(recorder) = self.recorder.take() {
            self.finishing.retain(|task| !task.is_finished());
            self.finishing.push(smol::spawn(complete(recorder, self.name.clone(), self.sink.clone())));
        }
    }

    /// Completes all files.
    pub(super) async fn close(self) {
        if let Some(recorder) = self.recorder {
            complete(recorder, self.name, self.sink).await;
        }
        for task in self.finishing {
            task.await;
        }
    }
}

/// Completes a file and reports the result.
async fn complete(recorder: Recorder, name: String, sink: Sink) {
    let recorded = recorder.finish().await;
    sink(&Event::recorded(&name, &recorded.path, recorded.error));
}

/// Returns the current time in UTC, as RFC 3339.
fn timestamp() -> String {
    let now = time::OffsetDateTime::now_utc();
    let format = time::format_description::well_known::Rfc3339;
    now.replace_nanosecond(0).unwrap_or(now).format(&format).unwrap_or_default()
}
