//! The files of the page, which are part of the program.

use hyper::StatusCode;

use super::reply::{Reply, reply};

/// Expands to the entry of one script of the page: path, content type and content.
macro_rules! script {
    ($name:literal) => {
        (
            concat!("/", $name, ".js"),
            "text/javascript; charset=utf-8",
            include_str!(concat!("../page/", $name, ".js")),
        )
    };
}

/// The files: path, content type and content.
const FILES: [(&str, &str, &str); 23] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    script!("address"),
    script!("admission"),
    script!("app"),
    script!("backoff"),
    script!("call"),
    script!("calls"),
    script!("camera"),
    script!("chat"),
    script!("clock"),
    script!("lobby"),
    script!("names"),
    script!("play"),
    script!("prepare"),
    script!("room"),
    script!("rooms"),
    script!("signalling"),
    script!("stats"),
    script!("ticker"),
    script!("view"),
    script!("watch"),
];

/// Returns the response with the page's file at `path`, if there is one.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (_, kind, content) = FILES.iter().find(|(name, _, _)| *name == path)?;
    Some(reply(StatusCode::OK, kind, *content))
}
