//! The settings that a reload replaces, all at once or not at all.

use super::api_keys::ApiKeys;
use super::auth::BackEndAuth;
use super::config::Config;
use super::error::{LEAST_SECRET, SecretKind, ServerError};
use super::ice::IceServers;
use super::names::Names;
use super::tls::Identity;
use super::token::{KeySource, TokenConfig, Tokens};
use super::trusted::Trusted;
use super::webhook::{WebhookConfig, WebhookError};
use crate::base::secret::Sealed;
use crate::protocol::Secret;

/// See the module.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) identity: Option<Identity>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) names: Names,
    pub(super) per_address: usize,
    pub(super) trusted: Trusted,
    pub(super) api_secret: Option<Sealed>,
    pub(super) api_keys: ApiKeys,
    pub(super) api_remote: bool,
    /// The secret that signs the tokens of the API.
    pub(super) signing: Option<Secret>,
    pub(super) tokens: Option<Tokens>,
    /// The back end that decides about tokens in place of keys.
    pub(super) back_end: Option<BackEndAuth>,
    /// Whether a connection ends with its token.
    pub(super) enforce_expiry: bool,
    pub(super) ice: IceServers,
    pub(super) webhooks: WebhookConfig,
}

impl Live {
    /// Checks the settings, and reads the keys of tokens. Without `must_read`, keys at an address that does not answer are
    /// only a warning: the server asks again.
    pub(super) async fn new(config: Config, must_read: bool) -> Result<Self, ServerError> {
        config.webhooks.check()?;
        let back_end = back_end(&config)?;
        if config.tokens.enforce_expiry && back_end.is_none() && !config.tokens.is_required() {
            return Err(ServerError::NothingExpires);
        }
        let api = strong(config.api_secret.as_ref(), SecretKind::Api)?;
        Ok(Self {
            tokens: tokens(&config.tokens, must_read).await?,
            identity: config.identity,
            allowed_origins: config.allowed_origins,
            names: Names::new(config.allowed_hosts).map_err(ServerError::AllowedHost)?,
            per_address: config.per_address,
            trusted: Trusted::new(config.trusted_proxies),
            api_secret: api.map(|secret| Sealed::new(&secret.0)).transpose()?,
            api_keys: config.api_keys,
            api_remote: config.api_remote,
            back_end,
            enforce_expiry: config.tokens.enforce_expiry,
            signing: config.tokens.secrets.first().cloned(),
            ice: config.ice,
            webhooks: config.webhooks,
        })
    }

    /// Returns whether every client needs a token.
    pub(super) fn needs_tokens(&self) -> bool {
        self.tokens.is_some() || self.back_end.is_some()
    }

    /// Returns whether the server's certificate covers a host name.
    pub(super) fn is_certified(&self, name: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.holds_for(name))
    }
}

/// Returns the back end that decides about tokens, if there is one.
fn back_end(config: &Config) -> Result<Option<BackEndAuth>, ServerError> {
    let Some(url) = &config.auth_url else { return Ok(None) };
    if config.tokens.is_required() {
        return Err(ServerError::TwoVerifiers);
    }
    if config.webhooks.secrets.is_empty() {
        return Err(WebhookError::NoSecret.into());
    }
    Ok(Some(BackEndAuth::new(url.url(), &config.webhooks.secrets)))
}

/// Returns the verifier of tokens, if there are keys for them.
async fn tokens(config: &TokenConfig, must_read: bool) -> Result<Option<Tokens>, ServerError> {
    if !config.is_required() {
        return Ok(None);
    }
    for secret in &config.secrets {
        strong(Some(secret), SecretKind::Token)?;
    }
    if config.keys.is_some() && config.audience.is_empty() {
        return Err(ServerError::NoAudience);
    }
    let tokens = Tokens::new(config);
    match (tokens.refresh().await, &config.keys) {
        (Err(why), Some(KeySource::File(_))) => return Err(ServerError::TokenKeys(why)),
        (Err(why), _) if must_read => return Err(ServerError::TokenKeys(why)),
        (Err(why), _) => tracing::warn!("{why}; nobody can connect until they can be read"),
        (Ok(()), _) => {}
    }
    Ok(Some(tokens))
}

/// Returns the secret, or an error if it is too short.
fn strong(secret: Option<&Secret>, kind: SecretKind) -> Result<Option<&Secret>, ServerError> {
    match secret {
        Some(secret) if secret.0.len() < LEAST_SECRET => Err(ServerError::ShortSecret(kind)),
        secret => Ok(secret),
    }
}
