//! Measures the cost of a stream with a growing number of receivers: one encode for all (roomtone), an encoder each
//! (webrtcsink).

use std::time::Duration;

use super::common::{self, Program, cpu};
use super::number;
use super::peers::Theirs;
use super::report::{Comparison, Report, percentile};

const SOURCE: &str =
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=1280,height=720,framerate=30/1";
const PORT: u16 = 18_480;

/// The share of one core that a process uses, in %, in each of so many seconds.
fn shares(pid: u32, seconds: u64) -> Vec<f64> {
    let second = |_| {
        let before = cpu(pid);
        std::thread::sleep(Duration::from_secs(1));
        (cpu(pid) - before).as_secs_f64() * 100.0
    };
    (0..seconds).map(second).collect()
}

/// Returns the slope of the line that lies closest to the points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    both / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

/// Measures it with up to so many receivers.
pub fn measure() {
    let (most, seconds) = (number("MOST", 8), number("SECONDS_EACH", 8));
    let home = tempfile::tempdir().unwrap();
    let mut server = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
    let url = common::ws(&server.link());
    let join = |more: &[&str]| {
        Program::start(home.path(), &[&["join", "bench", "--server", &url, "--headless"], more].concat())
    };
    let size = ["--size", "1280x720", "--fps", "30", "--bitrate", "2000", "--audio", "none"];
    let mut ours = join(&[&["--send-only", "--video", SOURCE], &size[..]].concat());
    ours.expect("room", &[]);
    let theirs = Theirs::program().map(|_| {
        Theirs::play(
            None,
            &format!(
                "{SOURCE} ! webrtcsink run-signalling-server=true signalling-server-port={PORT} \
                 signaller::uri=ws://127.0.0.1:{PORT} congestion-control=disabled start-bitrate=2000000 \
                 video-caps=video/x-vp8"
            ),
        )
    });
    let receives = format!(
        "webrtcsrc connect-to-first-producer=true signaller::uri=ws://127.0.0.1:{PORT} ! video/x-vp8 ! \
         fakesink sync=false"
    );
    let (mut receivers, mut comparisons, mut first) = (vec![], vec![], vec![]);
    let mut medians: [Vec<(f64, f64)>; 2] = Default::default();
    for count in [1, 2, 4, 8].into_iter().filter(|count| *count <= most) {
        while receivers.len() < count as usize {
            let mut receiver = join(&["--receive-only"]);
            let media = receiver.expect("media", &[("kind", "video")]);
            first.push(media["first_frame_ms"].as_f64().unwrap());
            receivers.push(receiver);
        }
        let mut samples = vec![("roomtone".to_owned(), shares(ours.pid(), seconds))];
        // The senders run one after the other: two at once would compete for the cores.
        if let Some(theirs) = &theirs {
            let start = |_| {
                let receiver = Theirs::play(None, &receives);
                std::thread::sleep(Duration::from_secs(1));
                receiver
            };
            let mut there: Vec<Theirs> = (0..count).map(start).collect();
            std::thread::sleep(Duration::from_secs(1));
            samples.push(("webrtcsink".to_owned(), shares(theirs.pid(), seconds)));
            assert!(there.iter_mut().all(Theirs::runs), "a receiver of theirs ended");
            drop(there);
            std::thread::sleep(Duration::from_secs(1));
        }
        for (median, (_, samples)) in medians.iter_mut().zip(&samples) {
            median.push((count as f64, percentile(samples, 50.0)));
        }
        let what = format!("The sender's CPU with {count} receiver{}", if count == 1 { "" } else { "s" });
        comparisons.push(Comparison { what, unit: "% of a core", samples });
    }
    let added = |(who, median): (&str, Vec<(f64, f64)>)| {
        (median.len() > 1).then(|| (who.to_owned(), vec![slope(&median)]))
    };
    let samples = ["roomtone", "webrtcsink"].into_iter().zip(medians).filter_map(added).collect();
    comparisons.push(Comparison { what: "Each receiver more".into(), unit: "% of a core", samples });
    comparisons.push(Comparison {
        what: "Until the first picture of one that joins".into(),
        unit: "ms",
        samples: vec![("roomtone".into(), first)],
    });
    Report {
        name: "room",
        about: format!(
            "One 1280x720 stream at 30 a second, VP8, 2 Mbit/s; receivers that do not decode. A sample is a second, of \
             {seconds} each."
        ),
        comparisons,
        courses: vec![],
    }
    .finish();
}

#[test]
fn a_slope() {
    assert!((slope(&[(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]) - 2.0).abs() < 1e-9);
}
