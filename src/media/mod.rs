//! The only place that knows GStreamer. Capture and encoding run once, in pipelines of their own
//! ([`capture`], [`encode`]); each peer has a pipeline around a webrtcbin ([`peer`]); what a peer sends goes from
//! there to windows, speakers and files, again in pipelines of their own ([`output`], [`record`]), so
//! that none of them can stop another. Between them run `StreamProducer`s: an appsink that feeds any
//! number of bounded, leaky appsrcs. All pipelines share one clock and one base time.

mod again;
pub mod capture;
mod certificate;
pub mod channel;
mod conceal;
mod congestion;
pub mod encode;
pub mod encoded;
mod feed;
mod gop;
pub mod grid;
mod handshake;
pub mod inventory;
mod jitter;
pub mod launch;
pub mod level;
pub mod output;
mod part;
pub mod peer;
pub mod pipeline;
pub mod playout;
pub mod receive;
pub mod record;
mod rtp;
mod ssrcs;
pub mod stage;
pub mod stats;
pub mod stream;
mod supervise;
mod transceivers;
pub mod transport;
pub mod voice;

pub use capture::Capture;
pub use encode::{Encoders, Rates};
pub use peer::{Peer, PeerEvent};
pub use stream::Stream;

use std::sync::PoisonError;

use crate::sdp::Kind;

/// What went wrong in the media layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// An element is not installed.
    #[error("the GStreamer element '{element}' is missing; {}", inventory::advice(.element))]
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
        "the file {path} cannot be sent: {reason}; --device is a path or an address that begins with file:, http: or https:"
    )]
    File {
        /// Path or address of the file.
        path: String,
        /// Reason of the failure.
        reason: String,
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

/// Starts GStreamer. To be called before anything else of this layer; again does nothing.
pub fn init() -> Result<(), MediaError> {
    // Loading the TLS module late, from libnice's thread, has crashed with gnutls.
    let _ = gio::prelude::TlsBackendExt::supports_tls(&gio::TlsBackend::default());
    gst::init().map_err(|error| MediaError::Init(error.to_string()))?;
    // Brings congestion control and RTP for AV1, which few distributions have. Once: a second time frees what the
    // first left in use.
    static EXTRA: std::sync::LazyLock<Result<(), String>> =
        std::sync::LazyLock::new(|| gstrsrtp::plugin_register_static().map_err(|error| error.to_string()));
    EXTRA.clone().map_err(MediaError::Init)
}

/// How long [`finish`] waits for what does not stop: for whoever reads a picture, say, and does not read on.
const FINISH: std::time::Duration = std::time::Duration::from_secs(3);

/// What is being done in the background.
static WARMING: std::sync::Mutex<Vec<std::thread::JoinHandle<()>>> = std::sync::Mutex::new(Vec::new());

/// Does in the background, once, what the first connection of a process would wait for: loads its elements, and lets
/// GStreamer's DTLS make the RSA key that it makes in any case (100 to 350 ms), though no connection of ours uses it.
/// A program that may end sooner than that is to call [`finish`] before it does.
pub fn warm_up() {
    const KEY: &[&str] = &["dtlsdec"];
    const OTHERS: &[&str] = &[
        "webrtcbin",
        "nicesrc",
        "nicesink",
        "srtpdec",
        "srtpenc",
        "rtpjitterbuffer",
        "rtprtxsend",
        "rtprtxreceive",
        "sctpdec",
        "rtpgccbwe",
        "dtlssrtpenc",
    ];
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for elements in [KEY, OTHERS] {
            let make = |element: &&str| drop(gst::ElementFactory::make(element).build());
            let thread = std::thread::spawn(move || elements.iter().for_each(make));
            WARMING.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
    });
}

/// Waits for what is done in the background, and for the pipelines that were let go, at most three seconds: at a process's
/// end libraries clean up, OpenSSL among them, and whoever still works with them then takes the process down.
pub fn finish() {
    for thread in WARMING.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = thread.join();
    }
    let left = pipeline::wait_for_all(FINISH);
    if left > 0 {
        tracing::debug!("pipelines that do not stop: {left}");
    }
}

/// Whether webrtcbin can forget an offer that it made and that adds m-lines. From 1.24 on it ends the process at
/// the next answer, when an m-line's mid is another than in that offer.
pub fn forgets_offers() -> bool {
    gst::version() < (1, 23, 0, 0)
}

/// GStreamer's version as it runs here.
pub fn version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}
