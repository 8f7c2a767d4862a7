//! Errors of the media layer. They name no command-line options: `cli` adds advice.

use gst_utils::streamproducer::AddConsumerError;

use super::packages;
use crate::sdp::{Codec, Kind};

/// Error of the media layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// GStreamer could not be initialised.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// An element is not installed.
    #[error("the GStreamer element '{element}' is missing; {}", packages::advice(.element))]
    MissingElement {
        /// Name of the element.
        element: String,
    },
    /// No pipeline has this name.
    #[error("there is no {kind} called '{name}'; there are: {}. A text with '!' in it is taken as a pipeline", .known.join(", "))]
    UnknownName {
        /// `source`, `output` or `encoder`.
        kind: &'static str,
        /// The unknown name.
        name: String,
        /// Known names.
        known: Vec<String>,
    },
    /// A parameter of a named pipeline or a channel is invalid or unexpected.
    #[error("{0}")]
    Parameter(String),
    /// A named source needs a device, and none was given.
    #[error("this source needs a device, a file or an address")]
    NoDevice,
    /// The text of a pipeline is invalid.
    #[error("the pipeline breaks at '{at}': {reason}")]
    Text {
        /// Part of the text that GStreamer rejects.
        at: String,
        /// GStreamer's message.
        reason: String,
    },
    /// A source delivers no frames.
    #[error("{name} does not start: {reason}{}", .there.as_ref().map(|there| format!("; devices found here: {there}")).unwrap_or_default())]
    Source {
        /// Display name of the source.
        name: String,
        /// GStreamer's message.
        reason: String,
        /// Devices of this machine, if the source is a device.
        there: Option<String>,
    },
    /// A file or a camera has no media of the kind.
    #[error("{name} has no {kind}")]
    NoMedia {
        /// Display name of the source.
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
    /// No codec of this kind is installed and allowed.
    #[error("no codec for {0} is available")]
    NoCodec(Kind),
    /// A pipeline could not be built, linked or started.
    #[error("{step} failed: {reason}")]
    Pipeline {
        /// The step that failed.
        step: String,
        /// GStreamer's message, or the missing piece.
        reason: String,
    },
    /// webrtcbin rejected a description, or made none.
    #[error("webrtcbin failed at {step}: {reason}")]
    Description {
        /// The step that failed.
        step: &'static str,
        /// webrtcbin's message.
        reason: String,
    },
    /// webrtcbin opened no data channel.
    #[error("webrtcbin opened no data channel '{0}'")]
    NoChannel(String),
    /// The connection's certificate could not be made.
    #[error("the certificate of the connection could not be made: {0}")]
    Certificate(String),
    /// Only relayed paths are allowed, and no TURN server relays.
    #[error("only relayed paths are allowed, and no TURN server provides a relay")]
    NoRelay,
    /// A file cannot be written.
    #[error("cannot record to {path}: {reason}")]
    Record {
        /// Path of the file.
        path: String,
        /// Reason of the failure.
        reason: String,
    },
}

impl MediaError {
    /// Returns the error of a step in which a pipeline was built, linked or started.
    pub(crate) fn pipeline(step: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Pipeline { step: step.into(), reason: reason.to_string() }
    }
}

impl From<AddConsumerError> for MediaError {
    fn from(error: AddConsumerError) -> Self {
        Self::pipeline("connecting two pipelines", error)
    }
}
