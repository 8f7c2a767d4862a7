//! `rooms`, `peers`, `kick`, `close`, `nodes` and `drain`: the API of a server.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::base::text::{brief, escape_json};
use crate::cli::CliError;
use crate::cli::args::api::{ApiOptions, CloseArgs, DrainArgs, KickArgs, NodesArgs, PeersArgs, RoomsArgs};
use crate::cli::output::result_line;
use crate::tls::http_agent;

/// The time limit of a request.
const REQUEST: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// The most pages of a list.
const MAX_PAGES: usize = 100_000;

/// The API of a server.
struct Api {
    agent: ureq::Agent,
    server: Url,
    key: String,
}

impl Api {
    fn new(options: &ApiOptions) -> Result<Self, CliError> {
        let key = options.api_key.as_ref().ok_or_else(|| {
            CliError::Usage(
                "--api-key is wanted, better as ROOMTONE_API_KEY: a key for the API of the server".into(),
            )
        })?;
        let agent = http_agent(&options.server, REQUEST);
        Ok(Self { agent, server: options.server.clone(), key: key.0.clone() })
    }

    /// Returns the address of a resource below that of the server.
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends a request; returns the JSON of the answer, null if it has none.
    fn ask(&self, method: &str, url: &Url, body: &str) -> Result<Value, CliError> {
        let request = ureq::http::Request::builder().method(method).uri(url.as_str());
        let request = request.header("authorization", format!("Bearer {}", self.key)).body(body.to_owned());
        let request = request.map_err(|error| CliError::Usage(error.to_string()))?;
        let unreachable =
            |why: String| CliError::Api(3, format!("the server at {} cannot be asked: {why}", self.server));
        let mut answer = self.agent.run(request).map_err(|error| unreachable(error.to_string()))?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.map_err(|error| unreachable(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        match (answer.status().as_u16(), value["message"].as_str()) {
            (200..=299, _) => Ok(value),
            (401 | 403 | 429, Some(why)) => Err(CliError::Api(4, why.to_owned())),
            (404, Some(why)) if value["code"] == "not_found" => Err(CliError::Api(5, why.to_owned())),
            (_, Some(why)) => Err(CliError::Api(1, why.to_owned())),
            (status, None) => {
                Err(CliError::Api(1, format!("no API answers at {}: status {status}", self.server)))
            }
        }
    }

    /// Passes the entries of the list `name`, which comes in pages, to `each`.
    fn list(&self, path: &[&str], name: &str, mut each: impl FnMut(&Value)) -> Result<(), CliError> {
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.ask("GET", &self.url(path, &[("after", &after)]), "")?;
            page[name].as_array().into_iter().flatten().for_each(&mut each);
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        Ok(())
    }
}

/// Prints an entry of a list: as JSON, or as columns.
fn show(json: bool, entry: &Value, columns: &[&str]) {
    let column = |name: &&str| match &entry[*name] {
        Value::String(text) => brief(text),
        Value::Null => String::new(),
        other => brief(&other.to_string()),
    };
    match json {
        true => result_line(&escape_json(&entry.to_string())),
        false => {
            let mut line: String = columns.iter().map(|name| format!("{:24} ", column(name))).collect();
            line.truncate(line.trim_end().len());
            result_line(&line);
        }
    }
}

pub(super) fn rooms(args: &RoomsArgs, json: bool) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    match &args.room {
        None => api.list(&["rooms"], "rooms", |room| show(json, room, &["room", "peers"])),
        Some(room) => api.list(&["rooms", room], "peers", |id| show(json, &json!({"id": id}), &["id"])),
    }
}

pub(super) fn peers(args: &PeersArgs, json: bool) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    let each = |peer: &Value| show(json, peer, &["id", "state", "room"]);
    if args.ids.is_empty() {
        return api.list(&["peers"], "peers", each);
    }
    let ids: Vec<(&str, &str)> = args.ids.iter().map(|id| ("id", id.as_str())).collect();
    let answer = api.ask("GET", &api.url(&["peers"], &ids), "")?;
    answer["peers"].as_array().into_iter().flatten().for_each(each);
    Ok(())
}

pub(super) fn kick(args: &KickArgs) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    let order = args.block_for.map(|time| json!({"block_for": time.as_secs()}).to_string());
    api.ask("DELETE", &api.url(&["peers", &args.peer], &[]), &order.unwrap_or_default()).map(drop)
}

pub(super) fn close(args: &CloseArgs) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    api.ask("DELETE", &api.url(&["rooms", &args.room], &[]), "").map(drop)
}

pub(super) fn nodes(args: &NodesArgs, json: bool) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    let columns = ["run", "version", "state", "connections", "peers", "rooms", "calls"];
    let answer = api.ask("GET", &api.url(&["nodes"], &[]), "")?;
    answer["nodes"].as_array().into_iter().flatten().for_each(|node| show(json, node, &columns));
    Ok(())
}

pub(super) fn drain(args: &DrainArgs) -> Result<(), CliError> {
    let api = Api::new(&args.api)?;
    let method = if args.undo.is_on() { "DELETE" } else { "POST" };
    api.ask(method, &api.url(&["drain"], &[]), "").map(drop)
}
