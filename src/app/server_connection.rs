//! The client's registration at its server: signalling, and the STUN and TURN servers that come with it.

use std::sync::Arc;

use smol::future::or;

use super::ice::Ice;
use super::{Event, Sink};
use crate::protocol::PeerId;
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, ConnectError, Driver, In, Registration, Target};

/// See the module.
pub(super) struct ServerConnection {
    driver: Driver,
    ice: Arc<Ice>,
    sink: Sink,
    /// The client's id; none if the server has no registration.
    id: Option<PeerId>,
    server: String,
}

impl ServerConnection {
    /// Registers for the first time; errors are returned to the user instead of being retried.
    pub(super) async fn open(
        target: Target,
        registration: Registration,
        ice: Arc<Ice>,
        sink: Sink,
    ) -> Result<Self, ConnectError> {
        let id = Some(registration.id.clone()).filter(|_| !target.capabilities().single_exchange);
        let server = target.name();
        let driver = Driver::open(target, registration).await?;
        ice.server_is_at(driver.server_address());
        Ok(Self { driver, ice, sink, id, server })
    }

    /// Returns the next event. Cancel-safe: dropping the future loses no event.
    pub(super) async fn next(&mut self) -> signalling::Event {
        loop {
            let event = async { Some(self.driver.next().await) };
            let renewal = async {
                self.ice.needs_renewal().await;
                None
            };
            let Some(event) = or(event, renewal).await else {
                self.ice.renewal_begins();
                self.driver.handle(In::RenewIceServers);
                continue;
            };
            self.ice.server_is_at(self.driver.server_address());
            match &event {
                signalling::Event::Registered => self.id.iter().for_each(|id| self.report(id)),
                signalling::Event::Joined { me: Some(me), .. } => self.report(me),
                _ => {}
            }
            return event;
        }
    }

    /// Gives the driver a command. Without a registration, messages are lost.
    pub(super) fn send(&mut self, command: In) {
        self.driver.handle(command);
    }

    /// Schedules the next attempt to register; `ended` says how the last connection or attempt ended.
    pub(super) fn reconnect(&mut self, ended: Ended) {
        self.driver.handle(In::Reconnect(ended));
    }

    /// Registers again, unless the client is registered and idle or an attempt is planned or under way already; `ended`
    /// says how the call ended.
    pub(super) fn release(&mut self, ended: Ended) {
        self.driver.handle(In::Release(ended));
    }

    /// Closes the connection in order; reports sessions that were not ended.
    pub(super) async fn close(self) {
        for text in self.driver.close().await {
            (self.sink)(&Event::Warning { text });
        }
    }

    fn report(&self, id: &PeerId) {
        (self.sink)(&Event::Registered { id: id.to_string(), server: self.server.clone() });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use super::*;
    use crate::app::options::PathOptions;
    use crate::base::timeout::timeout;
    use crate::server::ice::{Credentials, IceServers};
    use crate::server::{Config, Server, Timeouts};
    use crate::tls::Trust;

    #[test]
    fn fresh_turn_users_come_without_a_new_registration() {
        let ice = IceServers {
            turn: vec!["turn:example.org".into()],
            credentials: Credentials::Shared(crate::protocol::Secret("north".into())),
            ..IceServers::default()
        };
        let config = Config { ice, ..Config::plain(([127, 0, 0, 1], 0).into()) };
        let server = smol::block_on(Server::bind(config)).unwrap();
        let target = Target::parse(&format!("ws://{}/base/", server.address()), Trust::System).unwrap();
        let _serving = smol::spawn(server.run(std::future::pending()));
        let registration = Registration { id: "ann".parse().unwrap(), room: None, calls: None };
        let ice = Arc::new(Ice::new(PathOptions::default()));
        let sink: Sink = Arc::new(|_: &Event| {});
        smol::block_on(async {
            let mut connection =
                ServerConnection::open(target, registration, ice.clone(), sink).await.unwrap();
            let named = async |connection: &mut ServerConnection| {
                let servers = async {
                    loop {
                        if let signalling::Event::IceServers(servers) = connection.next().await {
                            return servers;
                        }
                    }
                };
                timeout(Duration::from_secs(20), servers).await.expect("the server names no servers")
            };
            // The first servers arrive with the registration, the second are requested.
            named(&mut connection).await;
            connection.send(In::RenewIceServers);
            let servers = named(&mut connection).await;
            assert!(servers[0].username.as_deref().unwrap().ends_with(":roomtone"));
        });
    }

    /// The protocols: URL schemes without and with TLS, and a path at which roomtone's server speaks the protocol.
    const PROTOCOLS: [(&str, &str, &str); 3] =
        [("ws", "wss", "/rooms"), ("ssp+ws", "ssp+wss", "/ssp"), ("ssp+http", "ssp+https", "/socket.io")];

    /// Joins a room at a server; returns the error as text.
    fn join(url: &str) -> Result<(), String> {
        let target = Target::parse(url, Trust::System).unwrap();
        let room = Some("attic".parse().unwrap());
        let registration = Registration { id: "ann".parse().unwrap(), room, calls: None };
        let opened = smol::block_on(Driver::open(target, registration));
        opened.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn every_protocol_at_every_other_protocols_path_names_the_url_to_use() {
        let timeouts = Timeouts { hello: Duration::from_millis(500), ..Timeouts::default() };
        let config = Config { timeouts, ..Config::plain(([127, 0, 0, 1], 0).into()) };
        let server = smol::block_on(Server::bind(config)).unwrap();
        let host = server.address();
        let _serving = smol::spawn(server.run(std::future::pending()));
        for (scheme, with_tls, own_path) in PROTOCOLS {
            for (right, _, path) in PROTOCOLS {
                let joined = join(&format!("{scheme}://{host}{path}/"));
                if path == own_path {
                    assert_eq!(joined, Ok(()), "{scheme} at {path}");
                } else {
                    let (error, url) = (joined.unwrap_err(), format!(" {right}://{host}{path}"));
                    assert!(error.contains(&url), "{scheme} at {path}: {error}");
                }
            }
            let error = join(&format!("{with_tls}://{host}{own_path}")).unwrap_err();
            let url = format!("it does not use TLS; its URL is {scheme}://{host}{own_path}");
            assert!(error.ends_with(&url), "{error}");
        }
    }

    #[test]
    fn every_protocol_at_a_server_that_may_need_tls_names_the_url_with_tls() {
        // A TLS alert, an HTTPS server's answer to HTTP, another page, and an end without an answer.
        let answers: [&[u8]; 4] = [
            &[21, 3, 3, 0, 2, 2, 70],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"",
        ];
        for ((scheme, with_tls, path), answer) in PROTOCOLS.iter().flat_map(|p| answers.map(|a| (*p, a))) {
            let host = answering(answer.to_vec());
            let error = join(&format!("{scheme}://{host}{path}")).unwrap_err();
            let url = format!(" this server with TLS is {with_tls}://{host}{path}");
            assert!(error.contains(&url), "{scheme}, {answer:?}: {error}");
        }
        for (scheme, with_tls, path) in PROTOCOLS {
            let head =
                "HTTP/1.1 308 Permanent Redirect\r\ncontent-length: 0\r\nlocation: https://[::1]:9/x\r\n\r\n";
            let error = join(&format!("{scheme}://{}{path}", answering(head.into()))).unwrap_err();
            assert!(error.contains(&format!("its URL is {with_tls}://[::1]:9{path}")), "{error}");
        }
    }

    /// Starts a server that gives this answer to the first bytes of each connection, and then closes it.
    fn answering(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answer);
            }
        });
        address
    }
}
