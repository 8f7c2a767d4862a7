//! Start and end of GStreamer in this process.

use super::error::MediaError;
use super::pipeline;
use crate::base::lock::lock;

/// Starts GStreamer; to be called before anything else of the media layer. Later calls do nothing.
pub fn init() -> Result<(), MediaError> {
    // Loading the TLS module late, from libnice's thread, has crashed with gnutls.
    let _ = gio::prelude::TlsBackendExt::supports_tls(&gio::TlsBackend::default());
    gst::init().map_err(|error| MediaError::Init(error.to_string()))?;
    // The plugin brings congestion control and RTP for AV1, which few distributions have. It is registered once: a
    // second registration frees what the first one still uses.
    static EXTRA: std::sync::LazyLock<Result<(), String>> =
        std::sync::LazyLock::new(|| gstrsrtp::plugin_register_static().map_err(|error| error.to_string()));
    EXTRA.clone().map_err(MediaError::Init)
}

/// Maximum time that [`finish`] waits for pipelines that do not stop, for instance because a reader of their output no
/// longer reads.
const FINISH: std::time::Duration = std::time::Duration::from_secs(3);

/// Threads of [`warm_up`].
static WARMING: std::sync::Mutex<Vec<std::thread::JoinHandle<()>>> = std::sync::Mutex::new(Vec::new());

/// Prepares the first connection of a process in the background, once: loads its elements, and lets GStreamer's DTLS
/// make the RSA key that DTLS makes in any case (100 to 350 ms), though no connection uses it. A program that may end
/// sooner than that must call [`finish`] before it ends.
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
            lock(&WARMING).push(thread);
        }
    });
}

/// Waits for background work and for pipelines that are being stopped, 3 s at most. At the end of a process libraries
/// such as OpenSSL free their state, and a thread that still uses that state crashes the process.
pub fn finish() {
    for thread in lock(&WARMING).drain(..) {
        let _ = thread.join();
    }
    let left = pipeline::wait_for_all(FINISH);
    if left > 0 {
        tracing::debug!("pipelines that do not stop: {left}");
    }
}

/// Returns the version of the installed GStreamer.
pub fn version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}
