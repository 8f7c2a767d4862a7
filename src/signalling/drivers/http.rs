//! The driver of HTTP requests: HTTP/1.1 over one connection per request.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{HeaderMap, StatusCode};
use smol::future::{or, pending};
use smol_hyper::rt::FuturesIo;
use url::{Position, Url};

use super::super::error::ConnectError;
use super::super::target::Target;
use super::dial::dial;

/// The time limit of one request: connecting, the request, and the whole response.
const REQUEST: Duration = Duration::from_secs(15);
/// The largest body of a response, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A response to a request.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, of at most 1 MiB.
    pub body: Vec<u8>,
}

/// Requests `url` by GET, with the target's token. Trust, client certificate and proxy are those of the target.
///
/// # Errors
///
/// [`ConnectError`] if no complete response arrives within 15 s. A response with an error status is no error.
pub async fn get(target: &Target, url: &Url) -> Result<Response, ConnectError> {
    let late = async {
        smol::Timer::after(REQUEST).await;
        Err(ConnectError::Silent(target.name(), format!("no HTTP response within {} s", REQUEST.as_secs())))
    };
    or(exchange(&target.at(url), url), late).await
}

async fn exchange(target: &Target, url: &Url) -> Result<Response, ConnectError> {
    let broken = |error: hyper::Error| ConnectError::Broken(format!("{}: {error}", target.name()));
    let mut request = hyper::Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort]);
    if let Some(token) = target.shown_token() {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.0));
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|_| ConnectError::Url(target.name()))?;
    let (stream, _) = dial(target).await?;
    let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await.map_err(broken)?;
    let response = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Response { status, headers, body: read(target, response.into_body()).await? })
    };
    // The connection has to be polled for the response to arrive.
    let connection = async {
        match connection.await {
            Ok(()) => pending().await,
            Err(error) => Err(broken(error)),
        }
    };
    or(response, connection).await
}

async fn read(target: &Target, mut body: Incoming) -> Result<Vec<u8>, ConnectError> {
    let broken = |why: String| ConnectError::Broken(format!("{}: {why}", target.name()));
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(error.to_string()))?.into_data() else { continue };
        if all.len() + data.len() > MAX_BODY {
            return Err(broken(format!("an HTTP response of more than {MAX_BODY} bytes")));
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::protocol::Secret;
    use crate::tls::Trust;

    /// Answers one request with `response`; returns the result of the request, and the request's head.
    fn ask(path: &str, response: Vec<u8>) -> (Result<Response, ConnectError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut head, mut byte) = (vec![], [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            // The client may close the connection before all is written.
            let _ = stream.write_all(&response);
            String::from_utf8(head).unwrap()
        });
        let target = Target::parse(&format!("ws://{address}{path}"), Trust::System).unwrap();
        let target = target.token(Some(Secret("secret".into())));
        let result = smol::block_on(get(&target, &target.beside("admission")));
        (result, server.join().unwrap())
    }

    #[test]
    fn a_request_keeps_the_base_path_and_shows_the_token() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-y: z\r\n\r\n{}".to_vec();
        let (response, head) = ask("/base/?a=b", answer);
        let response = response.unwrap();
        assert_eq!((response.status.as_u16(), response.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(response.headers["x-y"], "z");
        assert!(head.starts_with("GET /base/admission HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("\r\nauthorization: bearer secret\r\n"), "{head}");
        assert!(head.contains("\r\nhost: 127.0.0.1:"), "{head}");
    }

    #[test]
    fn a_status_is_no_error_and_an_endless_or_broken_body_is() {
        let (absent, _) = ask("", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec());
        assert_eq!(absent.unwrap().status, 404);
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(3 * MAX_BODY, b'x');
        assert!(ask("", endless).0.unwrap_err().to_string().contains("more than 1048576 bytes"));
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_vec();
        assert!(matches!(ask("", cut).0, Err(ConnectError::Broken(_))));
        assert!(matches!(ask("", b"SSH-2.0-x\r\n\r\n".to_vec()).0, Err(ConnectError::Broken(_))));
    }
}
