//! Parses a request as the server does before it knows the client, without a socket: for the fuzz targets.

use hyper::Request;

use super::codec::Codec;
use super::http;
use super::names::{self, Names};
use super::token::{self, TokenConfig, Tokens};
use crate::hub::Grant;
use crate::protocol::{PeerId, Secret};

/// Parses the head of a request (`METHOD TARGET`, then lines of `Name: value`) as a server does whose tokens are signed
/// with `secret`. Returns the permissions that the request's token grants.
///
/// # Errors
///
/// A text that says why the head is malformed, or the token is missing or rejected.
pub fn read_head(head: &str, secret: &Secret) -> Result<Grant, String> {
    let mut lines = head.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).ok_or("no request line")?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("no header")?;
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|error| error.to_string())?;
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let _ = (http::is_upgrade(request.headers()), http::api_names(path), http::is_polling(path));
    let own = Names::new(vec!["call.example.org".to_owned()])?;
    if own.check(&request, |name| name == "certified.example.org").is_ok() {
        let _ = names::origin_is_allowed(request.headers(), &["https://example.org".to_owned()], true);
    }
    let _ = (
        http::Query::parse(query).is_known(),
        Codec::of(path, true, PeerId::from_foreign(path).map_err(|error| error.to_string())?),
    );
    let token = token::shown(&request).ok_or("no token")?;
    let tokens = Tokens::new(&TokenConfig { secrets: vec![secret.clone()], ..TokenConfig::default() });
    smol::block_on(tokens.read(&token)).map(|granted| granted.grant).map_err(|error| error.to_string())
}
