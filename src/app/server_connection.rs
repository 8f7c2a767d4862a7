//! The client's registration at its server: signalling, and the STUN and TURN servers that come with it.

use std::sync::Arc;

use smol::future::or;

use super::ice::Ice;
use super::{Event, Sink};
use crate::protocol::PeerId;
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, Command, ConnectError, Driver, Registration, Target};

/// See the module.
pub(super) struct ServerConnection {
    driver: Driver,
    ice: Arc<Ice>,
    sink: Sink,
    id: PeerId,
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
        let (id, server) = (registration.id.clone(), target.name());
        let driver = Driver::open(target, registration).await?;
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
                self.driver.command(Command::RenewIceServers);
                continue;
            };
            self.ice.server_is_at(self.driver.server_address());
            match &event {
                signalling::Event::Registered => self.report(&self.id),
                signalling::Event::Joined { me: Some(me), .. } => self.report(me),
                _ => {}
            }
            return event;
        }
    }

    /// Gives the driver a command. Without a registration, messages are lost.
    pub(super) fn send(&mut self, command: Command) {
        self.driver.command(command);
    }

    /// Schedules the next attempt to register; `ended` says how the last connection or attempt ended.
    pub(super) fn reconnect(&mut self, ended: Ended) {
        self.driver.command(Command::Reconnect(ended));
    }

    /// Registers again, unless the client is registered and idle or an attempt is planned or under way already; `ended`
    /// says how the call ended.
    pub(super) fn release(&mut self, ended: Ended) {
        self.driver.command(Command::Release(ended));
    }

    /// Closes the connection in order.
    pub(super) async fn close(self) {
        self.driver.close().await;
    }

    fn report(&self, id: &PeerId) {
        (self.sink)(&Event::Registered { id: id.to_string(), server: self.server.clone() });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::options::PathOptions;
    use crate::base::timeout::timeout;
    use crate::server::ice::{Credentials, IceServers};
    use crate::server::{Config, Server};
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
            // The first come with the registration, the second are requested.
            named(&mut connection).await;
            connection.send(Command::RenewIceServers);
            let servers = named(&mut connection).await;
            assert!(servers[0].username.as_deref().unwrap().ends_with(":roomtone"));
        });
    }
}
