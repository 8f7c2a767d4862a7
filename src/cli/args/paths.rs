//! Options of STUN and TURN servers, which clients use and servers announce to their clients.

use std::path::PathBuf;

use clap::Args;

use crate::cli::CliError;
use crate::protocol::{IceKind, IceUrl, Secret};
use crate::server::ice::{Credentials, IceServers};

/// STUN and TURN servers: a client uses them, a server announces them to its clients.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "STUN and TURN")]
pub(crate) struct RelayArgs {
    /// STUN server, which finds paths out of a home network: stun:HOST; may be repeated
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = |text: &str| url(text, true))]
    pub stun: Vec<String>,
    /// TURN server, which relays where no direct path exists: turn:HOST, turn:HOST?transport=tcp, turns:HOST; may
    /// be repeated
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = |text: &str| url(text, false))]
    pub turn: Vec<String>,
    /// User name at the TURN servers
    #[arg(long, value_name = "NAME")]
    pub turn_user: Option<String>,
    /// Password at the TURN servers. On the command line other users of this machine can see it;
    /// ROOMTONE_TURN_PASSWORD hides it
    #[arg(long, value_name = "TEXT", conflicts_with = "turn_password_file")]
    pub turn_password: Option<Secret>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub turn_password_file: Option<PathBuf>,
    /// Secret shared with the TURN servers (coturn's use-auth-secret), from which users are made that expire after
    /// a day
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["turn_user", "turn_password", "turn_password_file"])]
    pub turn_secret: Option<Secret>,
}

impl RelayArgs {
    /// Returns the servers and the credentials for them. Reads the password file.
    pub(in crate::cli) fn servers(&self) -> Result<IceServers, CliError> {
        let password = match (&self.turn_password, &self.turn_password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
                Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (None, None) => None,
        };
        let credentials = match (&self.turn_secret, &self.turn_user, password) {
            (Some(secret), ..) => Credentials::Shared(secret.clone()),
            (None, Some(user), Some(password)) => Credentials::Fixed(user.clone(), password),
            (None, None, None) => Credentials::None,
            (None, ..) => {
                return Err(CliError::Usage("--turn-user and a password belong together".into()));
            }
        };
        Ok(IceServers { stun: self.stun.clone(), turn: self.turn.clone(), credentials })
    }
}

/// Checks the URL of a STUN or TURN server.
fn url(text: &str, is_stun: bool) -> Result<String, String> {
    let url: IceUrl = text.parse().map_err(|error: crate::protocol::ice::IceUrlError| error.to_string())?;
    match ((url.kind == IceKind::Stun) == is_stun, is_stun) {
        (true, _) => Ok(text.to_owned()),
        (false, true) => Err(format!("'{text}' is a TURN server; give it with --turn")),
        (false, false) => Err(format!("'{text}' is a STUN server; give it with --stun")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_checked_against_the_servers() {
        let servers = |args: RelayArgs| args.servers().map_err(|error| error.to_string());
        let turn = || vec!["turn:a".to_owned()];
        let text = |text: &str| Some(text.to_owned());
        let secret = |text: &str| Some(Secret(text.to_owned()));
        let fixed = RelayArgs {
            turn: turn(),
            turn_user: text("u"),
            turn_password: secret("p"),
            ..RelayArgs::default()
        };
        assert_eq!(servers(fixed).unwrap().credentials, Credentials::Fixed("u".into(), Secret("p".into())));
        let shared = RelayArgs { turn: turn(), turn_secret: secret("s"), ..RelayArgs::default() };
        assert_eq!(servers(shared).unwrap().credentials, Credentials::Shared(Secret("s".into())));
        let lone = RelayArgs { turn: turn(), turn_user: text("u"), ..RelayArgs::default() };
        assert!(servers(lone).unwrap_err().contains("belong together"));
    }

    #[test]
    fn each_kind_of_server_has_its_option() {
        assert_eq!(url("stun:a", true), Ok("stun:a".to_owned()));
        assert_eq!(url("turns:a", false), Ok("turns:a".to_owned()));
        assert!(url("turn:a", true).unwrap_err().contains("--turn"));
        assert!(url("stun:a", false).unwrap_err().contains("--stun"));
        assert!(url("turn:", false).unwrap_err().contains("no STUN or TURN server"));
    }
}
