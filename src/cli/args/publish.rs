//! Options of `publish` and `watch`.

use clap::Args;

use super::client::{TrustOptions, complete};
use super::paths::RelayArgs;
use crate::app;
use crate::app::options::{
    ChannelOptions, ConnectionOptions, MediaOptions, NONE, PathOptions, ReceiveOptions, SendOptions,
};
use crate::cli::CliError;
use crate::protocol::Secret;
use crate::protocol::whip::Role;
use crate::signalling::Target;

/// Help of an option whose default is that of calls elsewhere.
const GIVE_UP_AFTER: &str = "Longest search for a new path, including the wait for a publisher, before the program ends, in seconds [default: no limit]";

/// `publish`.
#[derive(Debug, Args)]
#[command(mut_arg("receive_only", |option| option.hide(true)))]
pub(crate) struct PublishArgs {
    /// URL of the WHIP endpoint, as the media server gives it for publishing
    #[arg(value_name = "URL")]
    pub url: String,
    /// Media that is sent.
    #[command(flatten)]
    pub send: SendOptions,
    /// The endpoint, and paths to it.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
}

/// `watch`.
#[derive(Debug, Args)]
#[command(mut_arg("send_only", |option| option.hide(true)))]
pub(crate) struct WatchArgs {
    /// URL of the WHEP endpoint, as the media server gives it for playing
    #[arg(value_name = "URL")]
    pub url: String,
    /// Use of the media that is received.
    #[command(flatten)]
    pub receive: ReceiveOptions,
    /// The endpoint, and paths to it.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
}

/// Options that `publish` and `watch` share.
#[derive(Debug, Args)]
#[command(mut_arg("give_up_after", |option| option.help(GIVE_UP_AFTER)))]
pub(crate) struct EndpointArgs {
    /// Token for the endpoint (Bearer). On the command line other users of this machine can see it; ROOMTONE_TOKEN
    /// hides it
    #[arg(long, value_name = "TEXT", help_heading = "Signalling")]
    pub token: Option<Secret>,
    /// Trust in the server, and the client's certificate.
    #[command(flatten)]
    pub trust: TrustOptions,
    /// Supervision of the connection.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Paths to the server.
    #[command(flatten)]
    pub paths: PathOptions,
    /// STUN and TURN servers.
    #[command(flatten)]
    pub relays: RelayArgs,
}

/// Returns a token without the blanks and line ends around it, checked: it becomes the value of a header field.
fn header_token(token: &Secret) -> Result<Secret, CliError> {
    let text = token.0.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let text = "the token (--token, ROOMTONE_TOKEN) is empty, or has a blank, a control character or a letter beyond \
                    ASCII: copy it again";
        return Err(CliError::Usage(text.to_owned()));
    }
    Ok(Secret(text.to_owned()))
}

impl PublishArgs {
    /// Returns the endpoint.
    pub(in crate::cli) fn target(&self) -> Result<Target, CliError> {
        self.endpoint.target(&self.url, Role::Publisher)
    }

    /// Returns the options of media and paths, checked.
    pub(in crate::cli) fn media(&self) -> Result<MediaOptions, CliError> {
        let is_none = |source: &Option<String>| source.as_deref() == Some(NONE);
        if self.send.receive_only.is_on() || is_none(&self.send.video) && is_none(&self.send.audio) {
            let text =
                "there is nothing to publish: give a source with --video or --audio, and no --receive-only";
            return Err(CliError::Usage(text.to_owned()));
        }
        self.endpoint.media(self.send.clone(), ReceiveOptions::nothing())
    }
}

impl WatchArgs {
    /// Returns the endpoint.
    pub(in crate::cli) fn target(&self) -> Result<Target, CliError> {
        self.endpoint.target(&self.url, Role::Player)
    }

    /// Returns the options of media and paths, checked.
    pub(in crate::cli) fn media(&self) -> Result<MediaOptions, CliError> {
        if self.receive.send_only.is_on() {
            return Err(CliError::Usage("--send-only receives nothing to watch; leave it out".to_owned()));
        }
        self.endpoint.media(SendOptions::nothing(), self.receive.clone())
    }
}

impl EndpointArgs {
    fn target(&self, url: &str, role: Role) -> Result<Target, CliError> {
        let target = Target::parse_stream(url, role, self.trust.trust()).map_err(app::ClientError::from)?;
        self.trust.complete(target.token(self.token.as_ref().map(header_token).transpose()?))
    }

    fn media(&self, send: SendOptions, receive: ReceiveOptions) -> Result<MediaOptions, CliError> {
        let (connection, paths) = (self.connection.clone(), self.paths.clone());
        let options = MediaOptions { send, receive, channels: ChannelOptions::default(), connection, paths };
        complete(&options, &self.relays, self.trust.trust())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_printable_word() {
        let read = |text: &str| header_token(&Secret(text.to_owned())).map(|token| token.0);
        assert_eq!(read(" abc.d-e_f=\r\n").unwrap(), "abc.d-e_f=");
        for wrong in ["", " ", "a b", "a\r\nx: y", "\u{e9}", "a\u{0}"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("the token (--token, ROOMTONE_TOKEN)"), "{wrong:?}: {error}");
        }
    }
}
