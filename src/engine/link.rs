//! The two connections of a server to its engine: one for requests, and one that waits for messages of the inbox. A waiting
//! read would hold up the requests behind it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    Value,
};

use super::address::Address;
use super::check::{Checked, check};
use super::error::EngineError;
use super::settings::Engine;
use crate::base::timeout::timeout;
use crate::hub::shard::scripts::{ATTACH, BEAT, TX};

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest wait for the answer to a request.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The requests that may be under way over one connection.
const UNDER_WAY: usize = 1024;

/// The SHA-1 sums by which the engine knows the scripts.
#[derive(Debug, Clone)]
pub(super) struct Scripts {
    pub(super) attach: String,
    pub(super) beat: String,
    pub(super) tx: String,
}

/// See the module.
pub(super) struct Link {
    pub(super) requests: MultiplexedConnection,
    pub(super) inbox: MultiplexedConnection,
    pub(super) scripts: Scripts,
    /// The address of the server that the connections lead to, for messages.
    pub(super) address: String,
}

impl Engine {
    /// Connects to the engine once, and checks that servers can use it. Returns its name and version.
    ///
    /// # Errors
    ///
    /// [`EngineError`] if the engine is not reached, refuses the server, or is not suitable.
    pub async fn check(&self) -> Result<String, EngineError> {
        let (link, checked) = Link::open(self).await?;
        if checked.is_full {
            return Err(EngineError::Full(link.address));
        }
        for warning in &checked.warnings {
            tracing::warn!("the engine {}: {warning}", self.address);
        }
        Ok(checked.version)
    }
}

impl Link {
    /// Connects to an engine, and checks that it is suitable.
    pub(super) async fn open(engine: &Engine) -> Result<(Self, Checked), EngineError> {
        let address = primary_of(engine).await?;
        let name = address.to_string();
        let mut requests = connect(&address, &name, Some(ANSWER)).await?;
        let info: String = ask(&name, redis::cmd("INFO"), &mut requests).await?;
        let checked = check(&name, &info)?;
        let mut sums = vec![];
        for script in [ATTACH, BEAT, TX] {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script);
            sums.push(ask::<String>(&name, load, &mut requests).await?);
        }
        let [attach, beat, tx] = <[String; 3]>::try_from(sums).unwrap_or_default();
        let inbox = connect(&address, &name, None).await?;
        Ok((Self { requests, inbox, scripts: Scripts { attach, beat, tx }, address: name }, checked))
    }
}

/// Returns the address of the server to connect to; asks the Sentinels, if the engine has any.
pub(super) async fn primary_of(engine: &Engine) -> Result<Address, EngineError> {
    // The provider of TLS for the whole process; it is installed once.
    let _ = futures_rustls::rustls::crypto::ring::default_provider().install_default();
    let host = match &engine.address.primary {
        Some(primary) => find_primary(&engine.address, primary).await?,
        None => engine.address.hosts.first().cloned().unwrap_or_default(),
    };
    Ok(Address { hosts: vec![host], primary: None, ..engine.address.clone() })
}

pub(super) async fn ask<T: redis::FromRedisValue>(
    name: &str,
    command: redis::Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, EngineError> {
    command.query_async(connection).await.map_err(|error| EngineError::of(name, &error))
}

pub(super) async fn connect(
    address: &Address,
    name: &str,
    answer: Option<Duration>,
) -> Result<MultiplexedConnection, EngineError> {
    let (host, port) = address.hosts.first().cloned().unwrap_or_default();
    let place = match address.is_secure {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    };
    let mut settings =
        RedisConnectionInfo::default().set_db(address.database).set_protocol(ProtocolVersion::RESP2);
    if let Some(user) = &address.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &address.password {
        settings = settings.set_password(&password.0);
    }
    let unreachable =
        |why: &dyn std::fmt::Display| EngineError::Unreachable(name.to_owned(), why.to_string());
    let refused = |error: redis::RedisError| match EngineError::of(name, &error) {
        EngineError::Lost(_, why) => EngineError::Unreachable(name.to_owned(), why),
        other => other,
    };
    let info =
        place.into_connection_info().map_err(|error| unreachable(&error))?.set_redis_settings(settings);
    let client = Client::open(info).map_err(|error| unreachable(&error))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(answer)
        .set_pipeline_buffer_size(UNDER_WAY);
    let connected = timeout(CONNECT, client.get_multiplexed_async_connection_with_config(&config)).await;
    connected.ok_or_else(|| unreachable(&"no answer"))?.map_err(refused)
}

/// Asks the Sentinels for the primary, one after the other.
async fn find_primary(address: &Address, primary: &str) -> Result<(String, u16), EngineError> {
    let mut why = String::new();
    for host in &address.hosts {
        // Sentinels have passwords of their own; usually none.
        let one = Address {
            hosts: vec![host.clone()],
            primary: None,
            user: None,
            password: None,
            database: 0,
            ..address.clone()
        };
        let name = one.to_string();
        let asked = async {
            let mut connection = connect(&one, &name, Some(ANSWER)).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(primary);
            ask::<Value>(&name, command, &mut connection).await
        };
        match asked.await {
            Ok(value) => match redis::from_redis_value::<(String, u16)>(value) {
                Ok(found) => return Ok(found),
                Err(_) => why = format!("{name} knows no primary of the name {primary}"),
            },
            Err(error) => why = error.to_string(),
        }
    }
    Err(EngineError::NoPrimary(address.to_string(), why))
}
