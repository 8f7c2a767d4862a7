//! Start and end of GStreamer in this process.

use super::error::MediaError;
use super::pipeline;
use crate::base::lock::lock;

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
            lock(&WARMING).push(thread);
        }
    });
}

/// Waits for what is done in the background, and for the pipelines that were let go, at most three seconds: at a process's
/// end libraries clean up, OpenSSL among them, and whoever still works with them then takes the process down.
pub fn finish() {
    for thread in lock(&WARMING).drain(..) {
        let _ = thread.join();
    }
    let left = pipeline::wait_for_all(FINISH);
    if left > 0 {
        tracing::debug!("pipelines that do not stop: {left}");
    }
}

/// GStreamer's version as it runs here.
pub fn version() -> String {
    let (major, minor, micro, _) = gst::version();
    format!("{major}.{minor}.{micro}")
}
