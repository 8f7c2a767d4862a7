//! The driver of HTTP requests: HTTP/1.1 over one connection per request.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use smol::future::{or, pending};
use smol_hyper::rt::FuturesIo;
use url::Position;

use super::super::error::ConnectError;
use super::super::signaller::{Request, Response};
use super::super::target::Target;
use super::dial::dial;
use super::websocket::headers;
use crate::base::timeout::timeout;

/// The time limit of one request: connecting, the request, and the whole response.
const REQUEST: Duration = Duration::from_secs(15);
/// The largest body of a response, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Sends a request. Trust, client certificate and proxy are those of the target.
///
/// # Errors
///
/// [`ConnectError`] if no complete response arrives within 15 s. A response with an error status is no error.
pub async fn send(target: &Target, request: &Request) -> Result<Response, ConnectError> {
    let at = target.at(&request.url);
    timeout(REQUEST, exchange(&at, request)).await.unwrap_or_else(|| {
        Err(ConnectError::Silent(target.name(), format!("no HTTP response within {} s", REQUEST.as_secs())))
    })
}

async fn exchange(target: &Target, request: &Request) -> Result<Response, ConnectError> {
    let broken = |error: hyper::Error| ConnectError::Broken(format!("{}: {error}", target.name()));
    let url = &request.url;
    let mut builder = hyper::Request::builder()
        .method(request.method)
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort]);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let body = Full::<Bytes>::new(request.body.clone().into());
    let message = builder.body(body).map_err(|_| ConnectError::Url(target.name()))?;
    let (stream, server) = dial(target).await?;
    let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await.map_err(broken)?;
    let response = async {
        let response = sender.send_request(message).await.map_err(broken)?;
        let (status, headers) = (response.status().as_u16(), headers(response.headers()));
        Ok(Response { status, headers, body: read(target, response.into_body()).await?, server })
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
    use crate::signalling::signaller::header;
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
            let _ = stream.read_exact(&mut [0; 2]);
            // The client may close the connection before all is written.
            let _ = stream.write_all(&response);
            String::from_utf8(head).unwrap()
        });
        let target = Target::parse(&format!("ws://{address}{path}"), Trust::System).unwrap();
        let headers = vec![("x-a".to_owned(), "b".to_owned())];
        let request =
            Request { method: "POST", url: target.beside("admission"), headers, body: b"hi".to_vec() };
        let result = smol::block_on(send(&target, &request));
        (result, server.join().unwrap())
    }

    #[test]
    fn a_request_keeps_the_base_path_the_headers_and_the_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-y: z\r\n\r\n{}".to_vec();
        let (response, head) = ask("/base/?a=b", answer);
        let response = response.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(header(&response.headers, "x-y"), Some("z"));
        assert!(head.starts_with("POST /base/admission HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("\r\nx-a: b\r\n") && head.contains("\r\ncontent-length: 2\r\n"), "{head}");
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
