//! The errors of the API, as JSON.

use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::server::api_keys::Scope;
use crate::server::http::reply::{Reply, reply};

/// An error of the API. The texts tell the developer of the back end what to change.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("this server has no API: it has neither an API secret nor API keys")]
    NoApi,
    #[error("the API is open to this machine only (setting api-remote)")]
    Remote,
    #[error("the header 'Authorization: Bearer KEY' with a key of this server is required")]
    NoKey,
    #[error("this key lacks the scope '{0}'")]
    Scope(Scope),
    #[error("too many requests; the header Retry-After says when to go on")]
    Later(Duration),
    #[error("the API has no such path; /api/v1/openapi.json describes all")]
    NoPath,
    #[error("this path has other methods only, which the header Allow lists")]
    Method(Vec<Method>),
    #[error("{0}")]
    Invalid(String),
    #[error("the body is too long: at most {0} bytes are accepted")]
    TooLong(usize),
    #[error("no {0} has this name")]
    NotFound(&'static str),
    #[error("{0}")]
    Conflict(&'static str),
}

impl ApiError {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoApi => (StatusCode::NOT_FOUND, "no_api"),
            Self::Remote => (StatusCode::FORBIDDEN, "not_this_machine"),
            Self::NoKey => (StatusCode::UNAUTHORIZED, "no_key"),
            Self::Scope(_) => (StatusCode::FORBIDDEN, "scope"),
            Self::Later(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::NoPath => (StatusCode::NOT_FOUND, "no_path"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Self::TooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_long"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        }
    }

    /// Returns the response to the request with this id.
    pub(super) fn reply(&self, request: &str) -> Reply {
        let (status, code) = self.status();
        let body = json!({"code": code, "message": self.to_string(), "request": request});
        let mut reply = reply(status, "application/json", body.to_string());
        let headers = reply.headers_mut();
        match self {
            Self::NoKey => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Later(wait) => {
                headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
            }
            Self::Method(methods) => {
                let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
                if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
                    headers.insert(header::ALLOW, methods);
                }
            }
            _ => {}
        }
        reply
    }
}
