//! Options of the paths to peers.

use std::net::IpAddr;
use std::str::FromStr;

use clap::ArgAction;

use crate::base::flag::Flag;
use crate::base::net::Network;
use crate::server::ice::IceServers;
use crate::tls::Trust;

/// Paths to peers that a client tries.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Paths")]
pub struct PathOptions {
    /// Use TURN servers only, so that the peer does not learn this machine's addresses
    #[arg(long, action = ArgAction::SetTrue)]
    pub relay_only: Flag,
    /// Look up the host names (….local) that browsers on the same network give as candidates; --no-mdns ignores them
    #[arg(long, action = ArgAction::SetTrue, default_value_t = Flag::On)]
    pub mdns: Flag,
    /// Try paths over TCP in addition to UDP; --no-ice-tcp tries UDP only
    #[arg(long, action = ArgAction::SetTrue, default_value_t = Flag::On)]
    pub ice_tcp: Flag,
    /// Try these addresses of peers too; may be repeated
    ///
    /// By default only ports from 1024 on are tried, and ports 80 and 443 of public addresses; no addresses of
    /// cloud metadata services; and loopback and link-local addresses only if the signalling server has such an
    /// address.
    #[arg(long, value_name = "ADDRESS/BITS", value_delimiter = ',')]
    pub ice_allow: Vec<Network>,
    /// Network interface whose addresses are used; other interfaces are not
    #[arg(long, value_name = "NAME")]
    pub interface: Option<Interface>,
    /// The user's own STUN and TURN servers; the command line has them in another group, which servers share.
    #[arg(skip)]
    pub servers: IceServers,
    /// Certificates that TURN servers over TLS may have: the same as for the signalling server.
    #[arg(skip)]
    pub trust: Trust,
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            relay_only: Flag::Off,
            mdns: Flag::On,
            ice_tcp: Flag::On,
            ice_allow: vec![],
            interface: None,
            servers: IceServers::default(),
            trust: Trust::System,
        }
    }
}

/// A network interface, known by its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(pub Vec<IpAddr>);

impl FromStr for Interface {
    type Err = String;

    /// Looks up the addresses of the interface called `name`.
    fn from_str(name: &str) -> Result<Self, String> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let found: Vec<IpAddr> =
            all.iter().filter(|one| one.name == name).map(if_addrs::Interface::ip).collect();
        if found.is_empty() {
            let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            names.dedup();
            return Err(format!("no interface '{name}' with an address; there are: {}", names.join(", ")));
        }
        Ok(Self(found))
    }
}
