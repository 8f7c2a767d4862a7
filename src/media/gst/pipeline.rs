//! A pipeline with an owner: it runs on the common clock, a task reads its bus, and a blocking worker stops it after
//! the owner has dropped it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::base::lock::lock;

use gst::prelude::*;
use smol::channel::{Receiver, Sender, bounded};
use smol::stream::StreamExt;

use super::error::MediaError;
use super::isolated_bin;

/// Event that a pipeline reports to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// The pipeline stopped with an error: name of the element, and GStreamer's message.
    Error(String, String),
    /// A part of the pipeline (`isolated_bin`) failed and the rest continues: name of the part, and GStreamer's
    /// message.
    Part(String, String),
    /// The stream has ended.
    Eos,
}

/// Base time of every pipeline, a moment at the start of the process. Pipelines with the same clock and base time share
/// timestamps.
static EPOCH: LazyLock<gst::ClockTime> = LazyLock::new(|| gst::SystemClock::obtain().time());

/// Returns the common base time of all pipelines.
pub(crate) fn epoch() -> gst::ClockTime {
    *EPOCH
}

/// Returns the time since the common base time.
pub fn running_time() -> gst::ClockTime {
    let epoch = *EPOCH;
    gst::SystemClock::obtain().time().saturating_sub(epoch)
}

/// Pipelines of this process that have not stopped.
static RUNNING: Running =
    Running { number: Mutex::new(0), changed: Condvar::new(), stopping: Mutex::new(Vec::new()) };

/// Counter that other threads can wait for.
#[derive(Debug)]
struct Running {
    number: Mutex<usize>,
    changed: Condvar,
    /// Workers that stop pipelines, one for each at most.
    stopping: Mutex<Vec<smol::Task<()>>>,
}

impl Running {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut lock(&self.number));
        self.changed.notify_all();
    }

    /// Keeps a worker until it has stopped its pipeline.
    fn keep(&self, worker: smol::Task<()>) {
        let mut stopping = lock(&self.stopping);
        stopping.retain(|worker| !worker.is_finished());
        stopping.push(worker);
    }

    fn wait(&self, patience: Duration) -> usize {
        let number = lock(&self.number);
        let waited = self.changed.wait_timeout_while(number, patience, |number| *number > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Waits until all pipelines have stopped, `patience` at most; returns the number of pipelines that have not.
pub(crate) fn wait_for_all(patience: Duration) -> usize {
    RUNNING.wait(patience)
}

/// Lets `source` hold media for the pipeline's current latency, and for `spare` more: packets that waited for a lost
/// packet arrive all at once. Older media is dropped.
pub(crate) fn hold_for_latency(source: &gst_app::AppSrc, spare: Duration) {
    let spare = gst::ClockTime::try_from(spare).unwrap_or(gst::ClockTime::MAX);
    let Some(pad) = source.static_pad("src") else { return };
    let weak = source.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if let Some(gst::EventView::Latency(event)) = info.event().map(|event| event.view())
            && let Some(source) = weak.upgrade()
        {
            source.set_max_time(event.latency() + spare);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Message for a source that requires a user name and a password, or rejects the given ones.
pub(crate) const NOT_AUTHORIZED: &str =
    "it wants a user name and a password in its address, or refuses these";

/// Returns the message of an error, in clearer words if GStreamer's message lacks the cause.
fn words(error: &gst::glib::Error, missing: Option<String>) -> String {
    match missing {
        _ if error.matches(gst::ResourceError::NotAuthorized) => NOT_AUTHORIZED.to_owned(),
        Some(missing) => {
            format!("GStreamer has no {missing} here; `roomtone doctor` lists the missing packages")
        }
        None => error.message().to_owned(),
    }
}

/// Returns the description of a missing plugin, from a `missing-plugin` message of a pipeline.
fn missing_plugin(structure: Option<&gst::StructureRef>) -> Option<String> {
    let structure = structure.filter(|structure| structure.name() == "missing-plugin")?;
    structure.get::<String>("name").ok()
}

fn is_in(object: &gst::Object, pipeline: &gst::Pipeline) -> bool {
    object == pipeline.upcast_ref::<gst::Object>() || object.has_as_ancestor(pipeline)
}

/// Recalculates a pipeline's latency after each message. The recalculation queries every element, so that it runs once
/// for all messages that wait, and on a blocking worker.
fn update_latency(pipeline: &gst::Pipeline, is_stale: Receiver<()>) -> smol::Task<()> {
    let weak = pipeline.downgrade();
    smol::spawn(async move {
        while is_stale.recv().await.is_ok() {
            let Some(pipeline) = weak.upgrade() else { break };
            let _ = smol::unblock(move || pipeline.recalculate_latency()).await;
        }
    })
}

/// Reads a pipeline's bus: calls `on_event` for errors and the end of the stream, and notes in `stale` that the latency
/// may have changed.
fn read_bus(
    pipeline: &gst::Pipeline,
    stale: Sender<()>,
    on_event: impl Fn(&gst::Pipeline, BusEvent) + Send + 'static,
) -> Option<smol::Task<()>> {
    use gst::MessageType::{Element, Eos, Error, Latency};
    let mut messages = pipeline.bus()?.stream_filtered(&[Error, Element, Eos, Latency]);
    let weak = pipeline.downgrade();
    Some(smol::spawn(async move {
        let mut missing = None;
        while let Some(message) = messages.next().await {
            let Some(pipeline) = weak.upgrade() else { break };
            match message.view() {
                gst::MessageView::Error(error) => {
                    tracing::debug!(debug = ?error.debug(), "{}", error.error());
                    on_event(&pipeline, failure(&pipeline, &message, &error.error(), missing.take()));
                }
                gst::MessageView::Element(element) => {
                    missing = missing_plugin(element.structure()).or(missing);
                }
                gst::MessageView::Eos(_) => on_event(&pipeline, BusEvent::Eos),
                gst::MessageView::Latency(_) => {
                    let _ = stale.try_send(());
                }
                _ => {}
            }
        }
    }))
}

/// Returns the event for an error message. An element outside the pipeline belonged to a part whose elements have been
/// replaced. Another thread may remove the element at any moment: the pipeline is looked for last, so that an element
/// whose part was not found is still inside only if it belongs to no part.
fn failure(
    pipeline: &gst::Pipeline,
    message: &gst::Message,
    error: &gst::glib::Error,
    missing: Option<String>,
) -> BusEvent {
    let source = message.src().map(|src| src.name().to_string()).unwrap_or_default();
    let words = words(error, missing);
    if let Some(part) = message.src().and_then(isolated_bin::of) {
        return BusEvent::Part(part, words);
    }
    match message.src().is_some_and(|src| !is_in(src, pipeline)) {
        true => BusEvent::Part(source, words),
        false => BusEvent::Error(source, words),
    }
}

/// A running pipeline, stopped when dropped.
#[derive(Debug)]
pub struct Owned {
    pipeline: gst::Pipeline,
    tasks: Vec<smol::Task<()>>,
    /// Steps on the worker before the pipeline stops: `close`, unless it was done or cancelled before, then `finish`,
    /// which must not be interrupted.
    close: fn(&gst::Pipeline),
    finish: fn(&gst::Pipeline),
    is_closed: AtomicBool,
}

impl Owned {
    /// Takes ownership of a pipeline and reads its bus; `on_event` runs on the executor.
    pub fn new(
        pipeline: gst::Pipeline,
        on_event: impl Fn(&gst::Pipeline, BusEvent) + Send + 'static,
    ) -> Self {
        let clock = gst::SystemClock::obtain();
        let epoch = *EPOCH;
        pipeline.use_clock(Some(&clock));
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(epoch);
        let (stale, is_stale) = bounded(1);
        let latency = update_latency(&pipeline, is_stale);
        let bus = read_bus(&pipeline, stale, on_event);
        RUNNING.change(|number| *number += 1);
        let tasks = bus.into_iter().chain([latency]).collect();
        Self { pipeline, tasks, close: |_| {}, finish: |_| {}, is_closed: AtomicBool::new(false) }
    }

    /// Adds steps that run on a blocking worker before the pipeline stops: `close` closes the connection, `finish`
    /// waits for work that must not be interrupted.
    pub(crate) fn with_end(mut self, close: fn(&gst::Pipeline), finish: fn(&gst::Pipeline)) -> Self {
        (self.close, self.finish) = (close, finish);
        self
    }

    /// Closes the connection now instead of at the end.
    pub(crate) async fn close(&self) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            let (pipeline, close) = (self.pipeline.clone(), self.close);
            smol::unblock(move || close(&pipeline)).await;
        }
    }

    /// Lets the pipeline stop without closing the connection.
    pub(crate) fn stop_silently(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Returns the pipeline.
    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    /// Starts the pipeline.
    pub fn play(&self) -> Result<(), MediaError> {
        let started = self.pipeline.set_state(gst::State::Playing);
        started.map(|_| ()).map_err(|error| MediaError::pipeline("starting a pipeline", error))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // A streaming thread may wait for the thread that drops the pipeline, so that tasks and state changes end
        // elsewhere. [`RUNNING`] keeps the worker, and the process waits for it at its end (`wait_for_all`).
        self.tasks.clear();
        let (pipeline, close, finish) = (self.pipeline.clone(), self.close, self.finish);
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        RUNNING.keep(smol::unblock(move || {
            if !is_closed {
                close(&pipeline);
            }
            finish(&pipeline);
            let _ = pipeline.set_state(gst::State::Null);
            drop(pipeline);
            RUNNING.change(|number| *number -= 1);
        }));
    }
}

#[cfg(test)]
mod tests {
    use smol::future::or;

    use super::*;

    #[test]
    fn the_end_waits_for_pipelines_within_the_time_limit() {
        let running = Running { number: Mutex::new(1), changed: Condvar::new(), stopping: Mutex::default() };
        assert_eq!(running.wait(Duration::from_millis(1)), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| running.change(|number| *number -= 1));
            assert_eq!(running.wait(Duration::from_secs(60)), 0);
        });
    }

    /// A failed element of a part posts an error when it stops, just before the part removes it.
    #[test]
    fn an_error_of_a_part_is_not_one_of_the_pipeline_while_its_elements_are_removed() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let part = gst::Bin::new();
        isolated_bin::name(&part);
        pipeline.add(&part).unwrap();
        for _ in 0..2000 {
            let (inner, element) = (gst::Bin::new(), gst::Bin::new());
            inner.add(&element).unwrap();
            part.add(&inner).unwrap();
            let message =
                gst::message::Error::builder(gst::CoreError::Failed, "broken").src(&element).build();
            let gst::MessageView::Error(error) = message.view() else { unreachable!() };
            std::thread::scope(|scope| {
                scope.spawn(|| part.remove(&inner).unwrap());
                let event = failure(&pipeline, &message, &error.error(), None);
                assert!(matches!(event, BusEvent::Part(..)), "{event:?}");
            });
        }
    }

    /// A peer that opens a hundred data channels causes a hundred latency messages, and hundreds of elements are
    /// queried for each.
    #[test]
    fn latency_is_recalculated_once_for_many_messages_on_a_worker() {
        gst::init().unwrap();
        let made = gst::parse::launch("fakesrc is-live=true ! fakesink name=sink async=false").unwrap();
        let owned = Owned::new(made.downcast().unwrap(), |_, _| {});
        owned.play().unwrap();
        let sink = owned.pipeline().by_name("sink").unwrap();
        let (asks, asked) = bounded(1000);
        let (answer, answers) = bounded::<()>(1);
        sink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::QUERY_UPSTREAM, move |_, info| {
            if let Some(gst::QueryView::Latency(_)) = info.query().map(|query| query.view()) {
                let _ = asks.send_blocking(());
                let _ = answers.recv_blocking();
            }
            gst::PadProbeReturn::Ok
        });
        let ask = || sink.post_message(gst::message::Latency::new()).unwrap();
        ask();
        asked.recv_blocking().unwrap();
        (0..100).for_each(|_| ask());
        let pause = |length| async move {
            smol::Timer::after(Duration::from_millis(length)).await;
            false
        };
        let runs = smol::spawn(async move { !pause(100).await });
        assert!(smol::block_on(or(runs, pause(10_000))), "the executor waits for the answer");
        drop(answer);
        asked.recv_blocking().unwrap();
        smol::block_on(pause(500));
        assert!(asked.len() < 10, "asked {} times more", asked.len());
    }
}
