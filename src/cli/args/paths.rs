//! The options of paths between peers: STUN, TURN, and what is tried.

use std::path::PathBuf;

use clap::Args;

use crate::cli::CliError;
use crate::protocol::{IceKind, IceUrl, Secret};
use crate::server::ice::{Credentials, IceServers};

/// STUN and TURN servers: a client uses them, a server tells its clients of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "STUN and TURN")]
pub(crate) struct RelayArgs {
    /// A STUN server, for paths out of a home network: stun:HOST; may be repeated
    #[arg(long, value_name = "URL", env = "ROOMTONE_STUN", value_delimiter = ',')]
    pub stun: Option<Vec<String>>,
    /// A TURN server, for where no other path leads: turn:HOST, turn:HOST?transport=tcp, turns:HOST;
    /// may be repeated
    #[arg(long, value_name = "URL", env = "ROOMTONE_TURN", value_delimiter = ',')]
    pub turn: Option<Vec<String>>,
    /// The user at the TURN servers
    #[arg(long, value_name = "NAME", env = "ROOMTONE_TURN_USER")]
    pub turn_user: Option<String>,
    /// Its password; other users of this machine see it, unless it stands in ROOMTONE_TURN_PASSWORD
    #[arg(long, value_name = "TEXT", env = "ROOMTONE_TURN_PASSWORD", conflicts_with = "turn_password_file")]
    pub turn_password: Option<Secret>,
    /// The file that holds the password
    #[arg(long, value_name = "FILE", env = "ROOMTONE_TURN_PASSWORD_FILE")]
    pub turn_password_file: Option<PathBuf>,
    /// The secret shared with the TURN servers (coturn's use-auth-secret), from which users that end
    /// after a day are made
    #[arg(long, value_name = "TEXT", env = "ROOMTONE_TURN_SECRET", conflicts_with_all = ["turn_user", "turn_password", "turn_password_file"])]
    pub turn_secret: Option<Secret>,
}

impl RelayArgs {
    /// The servers, checked.
    pub(in crate::cli) fn servers(self) -> Result<IceServers, CliError> {
        let check =
            |urls: Option<Vec<String>>, option: &str, is_stun: bool| -> Result<Vec<String>, CliError> {
                let urls = urls.unwrap_or_default();
                for url in &urls {
                    let parsed: IceUrl =
                        url.parse().map_err(|error| CliError::Usage(format!("{option}: {error}")))?;
                    if (parsed.kind == IceKind::Stun) != is_stun {
                        return Err(CliError::Usage(format!(
                            "{option}: '{url}' is the other kind: --stun, --turn"
                        )));
                    }
                }
                Ok(urls)
            };
        let password = match (self.turn_password, self.turn_password_file) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
                Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (None, None) => None,
        };
        let credentials = match (self.turn_secret, self.turn_user, password) {
            (Some(secret), ..) => Credentials::Shared(secret),
            (None, Some(user), Some(password)) => Credentials::Fixed(user, password),
            (None, None, None) => Credentials::None,
            (None, ..) => {
                return Err(CliError::Usage("--turn-user and a password belong together".into()));
            }
        };
        Ok(IceServers {
            stun: check(self.stun, "--stun", true)?,
            turn: check(self.turn, "--turn", false)?,
            credentials,
        })
    }
}

#[cfg(feature = "media")]
pub(crate) use path::PathArgs;

#[cfg(feature = "media")]
mod path {
    use std::net::IpAddr;

    use super::*;
    use crate::app::ice::IceOptions;
    use crate::sdp::reach::Network;
    use crate::tls::Trust;

    /// What paths to peers are tried.
    #[derive(Debug, Clone, Default, Args)]
    #[command(next_help_heading = "STUN and TURN")]
    pub(crate) struct PathArgs {
        /// By way of TURN servers alone: the peer does not learn our address
        #[arg(long, env = "ROOMTONE_RELAY_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
        pub relay_only: Option<bool>,
        /// Do not look up the names (….local) that browsers in the same network give
        #[arg(long, env = "ROOMTONE_NO_MDNS", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
        pub no_mdns: Option<bool>,
        /// Whether TCP is tried besides UDP [default: on]
        #[arg(long, value_name = "on|off", env = "ROOMTONE_ICE_TCP", value_parser = ["on", "off"], hide_possible_values = true)]
        pub ice_tcp: Option<String>,
        /// Try these addresses of peers too. Else only ports from 1024 on are tried, and 80 and 443 of public addresses; no
        /// addresses of cloud metadata; and loopback and link-local ones where the signalling server has such an
        /// address; may be repeated
        #[arg(long, value_name = "ADDRESS/BITS", env = "ROOMTONE_ICE_ALLOW", value_delimiter = ',')]
        pub ice_allow: Option<Vec<Network>>,
        /// The network interface whose addresses alone are used
        #[arg(long, value_name = "NAME", env = "ROOMTONE_INTERFACE")]
        pub interface: Option<String>,
    }

    impl PathArgs {
        /// Joined with the servers; TURN servers behind TLS are trusted like the signalling server.
        pub(in crate::cli) fn options(
            self,
            servers: IceServers,
            trust: Trust,
        ) -> Result<IceOptions, CliError> {
            Ok(IceOptions {
                servers,
                relay_only: self.relay_only == Some(true),
                tcp: self.ice_tcp.as_deref() != Some("off"),
                addresses: self.interface.as_deref().map(addresses).transpose()?.unwrap_or_default(),
                allowed: self.ice_allow.unwrap_or_default(),
                mdns: self.no_mdns != Some(true) && looks_up_mdns(),
                trust,
            })
        }
    }

    fn addresses(name: &str) -> Result<Vec<IpAddr>, CliError> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let found: Vec<IpAddr> =
            all.iter().filter(|one| one.name == name).map(if_addrs::Interface::ip).collect();
        if found.is_empty() {
            let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            names.dedup();
            let names = names.join(", ");
            return Err(CliError::Usage(format!(
                "no interface '{name}' with an address; there are: {names}"
            )));
        }
        Ok(found)
    }

    /// Whether this machine's resolver knows mDNS: elsewhere the names would go to name servers.
    fn looks_up_mdns() -> bool {
        let config = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
        config.lines().any(|line| line.trim_start().starts_with("hosts:") && line.contains("mdns"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_credentials_that_do_not_fit_are_refused() {
        let servers = |args: RelayArgs| args.servers().map_err(|error| error.to_string());
        let turn = || Some(vec!["turn:a".to_owned()]);
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
        let kinds = RelayArgs { stun: turn(), ..RelayArgs::default() };
        assert!(servers(kinds).unwrap_err().contains("--stun"));
        let wrong = RelayArgs { turn: Some(vec!["turn:".into()]), ..RelayArgs::default() };
        assert!(servers(wrong).unwrap_err().contains("no STUN or TURN server"));
    }
}
