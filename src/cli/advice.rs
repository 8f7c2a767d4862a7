//! Advice on errors, which names options. The layers below the command line report causes and know no options.
//!
//! Each function returns the end of the error's text; an empty text if the error needs no advice.

use crate::server::{SecretKind, ServerError};
use crate::signalling::ConnectError;

/// Returns what to do about a server that does not start.
pub(super) fn server(error: &ServerError) -> &'static str {
    match error {
        ServerError::ShortSecret(SecretKind::Token) => {
            "; give --token-secret a longer one: 'openssl rand -hex 32' makes one"
        }
        ServerError::ShortSecret(SecretKind::Api) => {
            "; give --api-secret a longer one: 'openssl rand -hex 32' makes one"
        }
        ServerError::NoAudience => "; --token-audience names it",
        ServerError::AllowedHost(_) => "; --allow-host takes a name alone, such as call.example.org",
        _ => "",
    }
}

/// Returns what to do about a failed connection to a server.
pub(super) fn connect(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Issuer(..) => {
            "; give its certificate with --ca FILE, or trust every server with --insecure"
        }
        ConnectError::NoToken(..) => "; give it with --token T, or in ROOMTONE_TOKEN",
        ConnectError::ClientCertificate(..) => "; give one with --client-cert FILE --client-key FILE",
        _ => "",
    }
}

#[cfg(feature = "media")]
pub(super) use client::{client, contradiction, media};

#[cfg(feature = "media")]
mod client {
    use crate::app::options::{ChannelsError, OptionError};
    use crate::app::{ClientError, EndReason};
    use crate::media::MediaError;

    /// Returns what to do about an error that ends a client.
    pub(in crate::cli) fn client(error: &ClientError) -> &'static str {
        match error {
            ClientError::Connect(error) => super::connect(error),
            ClientError::Media(error) => media(error),
            ClientError::Failed(EndReason::NoPath(_)) => "; --turn URL adds a TURN server",
            _ => "",
        }
    }

    /// Returns what to do about media that cannot start.
    pub(in crate::cli) fn media(error: &MediaError) -> &'static str {
        match error {
            MediaError::NoDevice => "; --device gives it, or --audio-device for audio alone",
            _ => "",
        }
    }

    /// Returns what to do about options that contradict each other.
    pub(in crate::cli) fn contradiction(error: &OptionError) -> &'static str {
        match error {
            OptionError::Bitrate(_) => "; --min-bitrate, --bitrate and --max-bitrate set them",
            OptionError::Channels(ChannelsError::Twice(_) | ChannelsError::Stdio) => {
                "; --channel LABEL:OPTION describes each"
            }
        }
    }
}
