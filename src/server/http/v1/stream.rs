//! The stream of events over HTTP, in the format of Server-Sent Events (WHATWG HTML, 9.2).

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::{Bytes, Frame};
use hyper::header::HeaderMap;
use smol::stream::unfold;

use super::error::ApiError;
use crate::base::timeout::timeout;
use crate::server::events::log::Reader;
use crate::server::http::reply::{Reply, reply};
use crate::server::shared::Shared;

/// The time without an event after which the server sends a comment, so that no proxy takes the connection for idle.
const QUIET: Duration = Duration::from_secs(15);
/// The header that names the last event that a client has got.
const LAST: &str = "last-event-id";

/// Answers with all events from now on, or with those behind the one that the client names.
pub(super) fn events(headers: &HeaderMap, query: &str, shared: &Shared) -> Result<Reply, ApiError> {
    if !query.is_empty() {
        return Err(ApiError::Invalid("this path has no parameters".into()));
    }
    let log = &shared.board.events;
    let named = headers.get(LAST).map(|id| id.to_str().unwrap_or_default());
    let (oldest, last) = log.places();
    let (place, has_gap) = match named {
        None => (last, false),
        Some(id) => match place(id, &log.run).filter(|number| (oldest..=last).contains(number)) {
            Some(number) => (number, false),
            None => (oldest, true),
        },
    };
    let begin = begin(&log.run, place, has_gap);
    let reader = log.reader(place).ok_or(ApiError::Later(Duration::from_secs(1)))?;
    let stream = unfold((reader, Some(begin)), |(mut reader, begin)| async move {
        let text = match begin {
            Some(begin) => begin,
            None => next(&mut reader).await?,
        };
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), (reader, None)))
    });
    let mut answer = reply(StatusCode::OK, "text/event-stream", "");
    *answer.body_mut() = StreamBody::new(stream).boxed_unsync();
    Ok(answer)
}

/// Returns the beginning of a stream: a client that loses the stream comes back after 2 s, and names at least this place
/// (an id without data counts, too). After a gap, the client has to read the lists again.
fn begin(run: &str, place: u64, has_gap: bool) -> String {
    let gap = if has_gap { "data: {\"type\":\"gap\"}\n" } else { "" };
    format!("id: {run}-{place}\nretry: 2000\n{gap}\n")
}

/// Returns the number in the id of an event of this run of the server.
fn place(id: &str, run: &str) -> Option<u64> {
    let (of, number) = id.split_once('-')?;
    number.parse().ok().filter(|_| of == run)
}

/// Returns the next event, or a comment after some time without one; none at the end of the stream.
async fn next(reader: &mut Reader) -> Option<String> {
    match timeout(QUIET, reader.next()).await {
        None => Some(": no event\n\n".to_owned()),
        Some(found) => {
            let (lost, event) = found?;
            Some(format!("id: {}-{}\ndata: {}\n\n", reader.run(), event.number, event.json(lost)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_with_a_place_to_come_back_to() {
        assert_eq!(begin("18c", 7, false), "id: 18c-7\nretry: 2000\n\n");
        assert_eq!(begin("18c", 0, true), "id: 18c-0\nretry: 2000\ndata: {\"type\":\"gap\"}\n\n");
    }

    #[test]
    fn an_id_of_another_run_names_no_place() {
        assert_eq!(place("18c-7", "18c"), Some(7));
        for other in ["18d-7", "18c", "18c-", "18c-x", "-7", ""] {
            assert_eq!(place(other, "18c"), None, "{other}");
        }
    }
}
