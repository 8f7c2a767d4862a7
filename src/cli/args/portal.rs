//! Options of the server for the back end behind it, such as a portal.

use clap::Args;

use crate::cli::CliError;
use crate::protocol::Secret;
use crate::server::{EventType, RateLimits, SigningSecret, WebhookConfig, WebhookUrl};

/// Options of webhooks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Back end")]
pub(crate) struct PortalOptions {
    /// Address of a back end that gets each event of the server as a POST request signed as Standard Webhooks; may be
    /// repeated
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub webhook: Vec<WebhookUrl>,
    /// Secret that signs webhooks (whsec_ and base64); may be repeated, to replace a secret. On the command line other
    /// users of this machine can see it; ROOMTONE_WEBHOOK_SECRET hides it
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub webhook_secret: Vec<Secret>,
    /// Type of event that webhooks get, such as call.missed [default: all]; may be repeated
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub webhook_type: Vec<EventType>,
}

/// Rates that clients may not exceed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rates")]
pub(crate) struct RateOptions {
    /// New connections a second of one IPv4 address or IPv6 network (/64), five times as many at once; loopback is not limited;
    /// 0 for no limit
    #[arg(long, value_name = "N", default_value_t = RateLimits::default().connects)]
    pub connect_rate: u32,
    /// Messages a second of one connection, ten times as many at once; loopback is not limited; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = RateLimits::default().messages)]
    pub message_rate: u32,
    /// HTTP requests a second of one connection, or of one client behind a proxy, four times as many at once; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = RateLimits::default().requests)]
    pub request_rate: u32,
    /// Requests a second of one key of the API, twice as many at once; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = RateLimits::default().api)]
    pub api_rate: u32,
}

impl RateOptions {
    pub(super) fn limits(&self) -> RateLimits {
        RateLimits {
            connects: self.connect_rate,
            messages: self.message_rate,
            requests: self.request_rate,
            api: self.api_rate,
        }
    }
}

impl PortalOptions {
    /// Returns the settings. The error does not quote a secret that has the wrong form.
    pub(super) fn webhooks(&self) -> Result<WebhookConfig, CliError> {
        let secrets = self.webhook_secret.iter().map(|secret| secret.0.parse::<SigningSecret>());
        let secrets = secrets.collect::<Result<_, _>>();
        Ok(WebhookConfig {
            urls: self.webhook.clone(),
            secrets: secrets.map_err(|error| CliError::Usage(format!("--webhook-secret: {error}")))?,
            types: self.webhook_type.clone(),
        })
    }
}
