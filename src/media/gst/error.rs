//! Errors of the media layer.

use super::packages;
use crate::sdp::{Codec, Kind};

/// What went wrong in the media layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// An element is not installed.
    #[error("the GStreamer element '{element}' is missing; {}", packages::advice(.element))]
    MissingElement {
        /// Its name.
        element: String,
    },
    /// There is no pipeline of that name.
    #[error("there is no {kind} called '{name}'; there are: {}. A text with '!' in it is taken as a pipeline", .known.join(", "))]
    UnknownName {
        /// `source` or `output`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A parameter of a named pipeline is wanting or not wanted.
    #[error("{0}")]
    Parameter(String),
    /// A named source needs a device, and none is given.
    #[error("this source needs a device, a file or an address")]
    NoDevice,
    /// A pipeline's text is wrong.
    #[error("the pipeline breaks at '{at}': {reason}")]
    Text {
        /// The part of the text that does not work.
        at: String,
        /// GStreamer's words.
        reason: String,
    },
    /// A source does not deliver.
    #[error("{name} does not start: {reason}{}", .there.as_ref().map(|there| format!("; devices found here: {there}")).unwrap_or_default())]
    Source {
        /// The source's name for messages.
        name: String,
        /// The reason in GStreamer's words.
        reason: String,
        /// Options that select the devices present, if the source is a device.
        there: Option<String>,
    },
    /// A file or a camera has no media of the kind.
    #[error("{name} has no {kind}")]
    NoMedia {
        /// The source's name for messages.
        name: String,
        /// Audio or video.
        kind: Kind,
    },
    /// A file to be sent cannot be read.
    #[error(
        "the file {path} cannot be sent: {reason}; it is given by its path, or by an address that begins with file:, http: or https:"
    )]
    File {
        /// Path or address of the file.
        path: String,
        /// Reason of the failure.
        reason: String,
    },
    /// No source of this kind is there to be sent.
    #[error("there is no {0} to send")]
    NothingToSend(Kind),
    /// Every installed encoder of a codec has failed.
    #[error("no encoder of {codec} works here; these failed: {}", .failed.join(", "))]
    NoEncoder {
        /// The codec.
        codec: Codec,
        /// GStreamer's names of the encoders.
        failed: Vec<&'static str>,
    },
    /// webrtcbin refused something.
    #[error("{0}")]
    WebRtc(String),
    /// A file cannot be written.
    #[error("cannot record to {path}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}
