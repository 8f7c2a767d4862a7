//! Errors that end the program, and their exit codes.

use super::advice;
use crate::server::ServerError;

/// Error that ends the program. docs/cli.md lists the exit codes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Wrong arguments, or a wrong configuration file.
    #[error("{0}")]
    Usage(String),
    /// Options that contradict each other.
    #[cfg(feature = "media")]
    #[error("{0}{advice}", advice = advice::contradiction(.0))]
    Options(#[from] crate::app::options::OptionError),
    /// The server cannot start.
    #[error("{0}{advice}", advice = advice::server(.0))]
    Server(#[from] ServerError),
    /// The API of a server refused a request, or was not reached: the exit code, and why.
    #[error("{1}")]
    Api(u8, String),
    /// The client ended in an error.
    #[cfg(feature = "media")]
    #[error("{0}{advice}", advice = advice::client(.0))]
    Client(#[from] crate::app::ClientError),
    /// Media cannot start.
    #[cfg(feature = "media")]
    #[error("{0}{advice}", advice = advice::media(.0))]
    Media(#[from] crate::media::MediaError),
    /// `doctor` found that a required part is missing.
    #[error("a part that every call needs is missing")]
    Incomplete,
    /// `--check-engine` found something wrong.
    #[cfg(feature = "engine")]
    #[error("servers cannot use this engine, or not without danger")]
    Engine,
    /// A signal ended the program.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// Returns the exit code, which depends on the cause.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Server(
                ServerError::ShortSecret(_)
                | ServerError::NoAudience
                | ServerError::TokenKeys(_)
                | ServerError::AllowedHost(_),
            ) => 2,
            Self::Server(_) => 1,
            #[cfg(feature = "engine")]
            Self::Engine => 1,
            Self::Api(code, _) => *code,
            #[cfg(feature = "media")]
            Self::Options(_) => 2,
            #[cfg(feature = "media")]
            Self::Client(error) => client_code(error),
            #[cfg(feature = "media")]
            Self::Media(error) => media_code(error),
            Self::Incomplete => 7,
            Self::Interrupted => 130,
        }
    }
}

#[cfg(feature = "media")]
fn client_code(error: &crate::app::ClientError) -> u8 {
    use crate::app::ClientError;
    use crate::signalling::ConnectError;
    match error {
        ClientError::Connect(ConnectError::Url(_) | ConnectError::StreamUrl(..) | ConnectError::File(_)) => 2,
        ClientError::Connect(
            ConnectError::Denied(..)
            | ConnectError::NoToken(..)
            | ConnectError::TokenEnded(..)
            | ConnectError::Refused(_)
            | ConnectError::Dismissed(_),
        ) => 4,
        ClientError::Connect(_) => 3,
        ClientError::NoCalls => 2,
        ClientError::Unavailable(_) => 5,
        ClientError::Failed(_) => 6,
        ClientError::Forged(_) => 8,
        ClientError::Media(error) => media_code(error),
        ClientError::Interrupted => 130,
    }
}

#[cfg(feature = "media")]
fn media_code(error: &crate::media::MediaError) -> u8 {
    use crate::media::MediaError;
    match error {
        MediaError::NoDevice
        | MediaError::UnknownName { .. }
        | MediaError::Parameter(_)
        | MediaError::Text { .. } => 2,
        MediaError::NothingToSend(_)
        | MediaError::NoEncoder { .. }
        | MediaError::NoCodec(_)
        | MediaError::Pipeline { .. }
        | MediaError::Description { .. }
        | MediaError::NoChannel(_)
        | MediaError::Certificate(_)
        | MediaError::NoRelay => 6,
        MediaError::Init(_)
        | MediaError::MissingElement { .. }
        | MediaError::Source { .. }
        | MediaError::NoMedia { .. }
        | MediaError::File { .. }
        | MediaError::Record { .. } => 7,
    }
}
