//! The back end for WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): HTTP requests to an endpoint.
//!
//! Each offer begins a session of its own: a POST, whose response has the answer, the session's URL, and STUN and TURN
//! servers. An offer that fails is repeated by the policy of [`reconnect`](super::reconnect). A new offer ends the session
//! before, because many servers accept one publisher at a time.
//!
//! Pure: no clock, chance, socket or GStreamer.

mod ending;
mod fields;
mod offer;
mod origin;
mod session;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use url::Url;

use self::ending::{END, Ending, failure};
use self::fields::{after, names_invalid_token};
use self::offer::Offer;
use self::session::Session;
use super::error::{ConnectError, brief};
use super::event::Event;
use super::reconnect::{Cause, Ended, Reconnect, Stage, Verdict, verdict};
use super::signaller::{
    Capabilities, Headers, In, Out, Request, RequestId, Response, ServerRequest, Signaller, header,
};
use super::target::{Protocol, Target};
use crate::protocol::whip::{self, Meaning, Role, link};
use crate::protocol::{Description, PeerMessage, Refusal, SdpKind};

/// The entries of the registry.
pub(super) const WHIP: Protocol =
    protocol("a WHIP endpoint", |target, _, chance| Box::new(Whip::new(target, Role::Publisher, chance)));
pub(super) const WHEP: Protocol =
    protocol("a WHEP endpoint", |target, _, chance| Box::new(Whip::new(target, Role::Player, chance)));

const fn protocol(server: &'static str, start: super::target::Start) -> Protocol {
    Protocol {
        server,
        schemes: ["http", "https"],
        default_path: "/",
        usual_path: "/",
        query: "",
        capabilities: Capabilities { calls: false, assigns_ids: false, single_exchange: true },
        start,
        recognises: |_| false,
    }
}

/// Maximum number of redirects of one offer.
const MAX_REDIRECTS: u32 = 5;

/// The state of the latest offer.
enum Phase {
    /// There is no offer, or the user's action is needed.
    Idle,
    /// The session before is being ended; the offer is sent after the response, but not before its time, or at `until`.
    Ending { request: RequestId, until: Instant, not_before: Instant, offer: Offer },
    /// The next attempt begins at this time.
    Waiting(Instant, Offer),
    /// The offer is sent to this URL, after so many redirects.
    Posting { request: RequestId, url: Url, redirects: u32, offer: Offer },
    /// The offer is answered.
    Up(Session),
}

/// Back end of WHIP and WHEP: a client of one endpoint. Its `Debug` text has no secrets.
pub struct Whip {
    role: Role,
    /// The endpoint, without user and password.
    endpoint: Url,
    /// The value of `Authorization`, for the origin of the endpoint alone ([`origin::gets_token`]).
    authorization: Option<String>,
    /// Whether there is a token besides user and password of the URL, which are sent.
    has_unused_token: bool,
    chance: fn() -> f64,
    reconnect: Reconnect,
    stage: Stage,
    /// Whether the server asked to wait for a publisher or for its end: it is the right server, although it sent no answer.
    has_to_wait: bool,
    phase: Phase,
    ending: Ending,
    last: RequestId,
    /// The problem reported last, so that the same text is not reported twice.
    reported: Option<String>,
    outputs: VecDeque<Out>,
}

/// The name of a URL for people, without its secret parts.
fn name(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    brief(url.as_str())
}

impl std::fmt::Debug for Whip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Whip({:?}, {})", self.role, name(&self.endpoint))
    }
}

impl Whip {
    /// Returns the back end for an endpoint.
    pub(super) fn new(target: &Target, role: Role, chance: fn() -> f64) -> Self {
        let mut endpoint = target.url().clone();
        let user = percent_encoding::percent_decode_str(endpoint.username()).decode_utf8_lossy().into_owned();
        let password = endpoint.password().unwrap_or_default();
        let password = percent_encoding::percent_decode_str(password).decode_utf8_lossy().into_owned();
        let basic = (!user.is_empty())
            .then(|| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        let _ = endpoint.set_username("");
        let _ = endpoint.set_password(None);
        Self {
            role,
            endpoint,
            has_unused_token: basic.is_some() && target.token_text().is_some(),
            authorization: basic.or_else(|| target.token_text().map(|token| format!("Bearer {token}"))),
            chance,
            reconnect: Reconnect::default(),
            stage: Stage::BeforeFirstSuccess,
            has_to_wait: false,
            phase: Phase::Idle,
            ending: Ending::default(),
            last: RequestId::default(),
            reported: None,
            outputs: VecDeque::new(),
        }
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Out::Event(event));
    }

    /// Reports a problem that is not the one reported last.
    fn warn(&mut self, text: String) {
        if self.reported.as_ref() != Some(&text) {
            self.reported = Some(text.clone());
            self.report(Event::Warning(text));
        }
    }

    /// Reports the readiness for the first offer, and warns of a token that is not sent, or that others can read.
    fn registered(&mut self) {
        self.report(Event::Registered);
        if self.has_unused_token {
            self.warn("the URL has user and password, which are sent; the token is not sent".to_owned());
        }
        if self.authorization.is_some() && origin::is_readable(&self.endpoint) {
            let (what, server) = (self.credentials(), name(&self.endpoint));
            self.warn(format!("{what} for {server} can be read by others on the path to it: use https"));
        }
    }

    /// Returns the name of what `Authorization` has.
    fn credentials(&self) -> &'static str {
        let is_basic = self.authorization.as_ref().is_some_and(|value| value.starts_with("Basic "));
        if is_basic { "the password" } else { "the token" }
    }

    /// Sends a request. The token goes to the origin of the endpoint alone.
    fn request(&mut self, method: &'static str, url: &Url, mut headers: Headers, body: String) -> RequestId {
        self.last = RequestId(self.last.0 + 1);
        if origin::gets_token(&self.endpoint, url) {
            headers.extend(self.authorization.clone().map(|value| ("authorization".to_owned(), value)));
        }
        let request = Request { method, url: url.clone(), headers, body: body.into_bytes() };
        self.outputs.push_back(Out::Request(self.last, request));
        self.last
    }

    /// Begins a session with a new offer of our side.
    fn offered(&mut self, now: Instant, text: &str) {
        let offer = match Offer::parse(text) {
            Ok(offer) => offer,
            Err(error) => return self.warn(format!("the offer cannot be sent: {error}")),
        };
        // The first connects follow each other at once, later ones as the token bucket allows. A pause after a failure holds
        // for the new offer, too.
        let planned = match &self.phase {
            Phase::Ending { not_before, .. } => *not_before,
            Phase::Waiting(at, _) => *at,
            Phase::Idle | Phase::Posting { .. } | Phase::Up(_) => now,
        };
        let not_before = planned.max(now + self.reconnect.pause(now, Ended::CallOver, (self.chance)()));
        self.phase = match self.give_up(now) {
            Some(request) => Phase::Ending { request, until: not_before.max(now + END), not_before, offer },
            None => Phase::Waiting(not_before, offer),
        };
        self.proceed(now);
    }

    /// Gives up the latest offer, and ends its session; returns the request that does so.
    fn give_up(&mut self, now: Instant) -> Option<RequestId> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Posting { request, url, .. } => {
                self.ending.add_offer(request, url);
                None
            }
            Phase::Up(session) => {
                self.outputs.extend(session.pending().map(Out::Abandon));
                session.url.map(|url| self.delete(now, url))
            }
            Phase::Idle | Phase::Ending { .. } | Phase::Waiting(..) => None,
        }
    }

    fn delete(&mut self, now: Instant, url: Url) -> RequestId {
        let request = self.request("DELETE", &url, vec![], String::new());
        self.ending.add_end(now, request, url);
        request
    }

    /// Sends the offer whose time has come.
    fn proceed(&mut self, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Ending { until: at, offer, .. } | Phase::Waiting(at, offer) if at <= now => {
                let endpoint = self.endpoint.clone();
                self.reconnect.connects(now);
                self.post(endpoint, 0, offer);
            }
            phase => self.phase = phase,
        }
    }

    fn post(&mut self, url: Url, redirects: u32, offer: Offer) {
        let headers = [("content-type", whip::SDP), ("accept", whip::SDP), ("accept-encoding", "identity")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = self.request("POST", &url, headers.to_vec(), offer.text());
        self.phase = Phase::Posting { request, url, redirects, offer };
    }

    /// Handles a response, or the failure of a request.
    fn response(&mut self, now: Instant, id: RequestId, result: Result<Response, ConnectError>) {
        if let Some(url) = self.ending.take_offer(id) {
            return result.iter().for_each(|response| self.end_session_of(now, &url, response));
        }
        if let (Some(url), Some(why)) = (self.ending.take_end(id), failure(&result)) {
            self.not_ended(&url, &why);
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Posting { request, url, redirects, offer } if request == id => match result {
                Ok(response) => self.posted(now, &url, redirects, offer, &response),
                Err(error) => self.failed(now, offer, error),
            },
            Phase::Ending { request, not_before, offer, .. } if request == id => {
                self.phase = Phase::Waiting(not_before, offer);
                self.proceed(now);
            }
            Phase::Up(mut session) => {
                let candidates = session.patched(id, result);
                self.phase = Phase::Up(session);
                for candidate in candidates {
                    self.report(Event::Peer(PeerMessage::Candidate(candidate)));
                }
                self.trickle(now);
            }
            phase => self.phase = phase,
        }
    }

    /// Returns the URL in a response to a request to `url`, or a clause that says why there is none that may be used.
    fn location(&self, url: &Url, response: &Response) -> Result<Url, String> {
        let location = header(&response.headers, "location").ok_or("there is none")?;
        let location = whip::resolve(url, location).map_err(|error| error.to_string())?;
        let server = response.server.filter(|_| url.host() == self.endpoint.host());
        if !origin::permits(&self.endpoint, server, &location) {
            let host = location.host_str().unwrap_or_default();
            return Err(format!(
                "it leads into a network that is narrower than that of the endpoint ({host})"
            ));
        }
        Ok(location)
    }

    /// Ends the session that a response began, which is not wanted any more.
    fn end_session_of(&mut self, now: Instant, url: &Url, response: &Response) {
        if !matches!(response.status, 200 | 201) {
            return;
        }
        match self.location(url, response) {
            Ok(location) => drop(self.delete(now, location)),
            Err(why) => self.not_ended(url, &format!("its URL (Location) is not used: {why}")),
        }
    }

    /// Reports that the session at this URL was not ended. The path is left out, because it may be all that a stranger needs
    /// to end the session.
    fn not_ended(&mut self, url: &Url, why: &str) {
        let withheld = self.withheld(url).map(|clause| format!("; {clause}")).unwrap_or_default();
        let origin = url.origin().ascii_serialization();
        self.warn(format!("a session at {origin} could not be ended, and may go on there: {why}{withheld}"));
    }

    fn posted(&mut self, now: Instant, url: &Url, redirects: u32, offer: Offer, response: &Response) {
        let (meaning, advice) = whip::meaning(self.role, response.status);
        let field = |name| header(&response.headers, name).unwrap_or_default();
        let said = whip::reason(field("content-type"), &response.body).map(|said| format!(" ({said})"));
        let status = format!("{}{}", whip::status_name(response.status), said.unwrap_or_default());
        let why = format!("it answered {status}: {advice}");
        let server = name(url);
        let error = match meaning {
            Meaning::Accepted => match self.answered(&offer, response) {
                Ok(()) => {
                    let location = self.location(url, response);
                    return self.succeeded(now, location, offer, response);
                }
                Err(why) => {
                    self.end_session_of(now, url, response);
                    ConnectError::NoAnswer(server, format!("it answered {status}, but {why}"))
                }
            },
            Meaning::Redirected => match self.location(url, response) {
                Ok(next) if redirects < MAX_REDIRECTS => return self.post(next, redirects + 1, offer),
                Ok(_) => ConnectError::NoAnswer(server, format!("more than {MAX_REDIRECTS} redirects")),
                Err(why) => {
                    let text =
                        format!("it answered {status} without a URL that may be used (Location): {why}");
                    ConnectError::NoAnswer(server, text)
                }
            },
            Meaning::NotNow => {
                self.has_to_wait = true;
                self.warn(format!("{server}: {advice} ({status}); asking again until that changes"));
                return self.wait(now, offer, after(response));
            }
            Meaning::Denied if names_invalid_token(&response.headers) => {
                ConnectError::TokenEnded(server, why)
            }
            Meaning::Denied if response.status == 401 => ConnectError::NoToken(server, self.denied(url, why)),
            Meaning::Denied => ConnectError::Denied(server, self.denied(url, why)),
            Meaning::WrongUrl => ConnectError::NoAnswer(server, why),
            Meaning::Refused => ConnectError::Refused(Refusal::Other(format!("{server}: {why}"))),
            Meaning::Overloaded => {
                let status = format!("{status}: {advice}");
                ConnectError::Overloaded { server, status, retry_after: after(response) }
            }
        };
        self.failed(now, offer, error);
    }

    /// Adds to a denial that the token was not sent, if that is so.
    fn denied(&self, url: &Url, why: String) -> String {
        match self.withheld(url) {
            Some(clause) => format!("{why}; {clause}: if it is meant for that server, use its URL"),
            None => why,
        }
    }

    /// Returns a clause that says that requests to a URL have no token, if there is one and they have not.
    fn withheld(&self, url: &Url) -> Option<String> {
        let is_withheld = self.authorization.is_some() && !origin::gets_token(&self.endpoint, url);
        let (what, origin) = (self.credentials(), url.origin().ascii_serialization());
        is_withheld.then(|| {
            format!("{what} was not sent to {origin}, which is another origin than that of the endpoint")
        })
    }

    /// Reads the response that accepts the offer, and reports its servers and the answer.
    fn answered(&mut self, offer: &Offer, response: &Response) -> Result<(), String> {
        let field = |name| header(&response.headers, name);
        if let Some(coding) =
            field("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
            return Err(format!("its body is encoded ({}), which was not asked for", brief(coding)));
        }
        let kind = field("content-type").unwrap_or_default();
        let answer =
            offer.answer(&response.body).map_err(|error| match whip::is_of_type(kind, "text/html") {
                true => "sent a page: is this the URL of the endpoint, or that of a page about the stream?"
                    .to_owned(),
                false => format!("its body is no usable answer: {error}"),
            })?;
        let links =
            response.headers.iter().filter(|(name, _)| name == "link").map(|(_, value)| value.as_str());
        // An empty list, too: the servers of an earlier session are not for this one.
        self.report(Event::IceServers(link::ice_servers(links)));
        self.report(Event::Peer(PeerMessage::Description(Description {
            kind: SdpKind::Answer,
            sdp: answer,
        })));
        Ok(())
    }

    fn succeeded(&mut self, now: Instant, url: Result<Url, String>, offer: Offer, response: &Response) {
        self.reconnect.registered(now);
        (self.stage, self.reported) = (Stage::AfterFirstSuccess, None);
        if let Err(why) = &url {
            self.warn(format!(
                "the session cannot be ended in order, for the lack of a URL of it (Location): {why}"
            ));
        }
        self.phase = Phase::Up(Session::new(url.ok(), offer, &response.headers));
    }

    fn failed(&mut self, now: Instant, offer: Offer, error: ConnectError) {
        let passes =
            matches!(error.cause(), Cause::Unreachable | Cause::Closed | Cause::Silent | Cause::Overloaded);
        if verdict(error.cause(), self.stage) == Verdict::Retry || self.has_to_wait && passes {
            self.warn(error.to_string());
            self.wait(now, offer, error.retry_after());
        } else {
            self.report(Event::Ended(error));
        }
    }

    /// Plans the next attempt.
    fn wait(&mut self, now: Instant, offer: Offer, asked: Option<Duration>) {
        let pause = self.reconnect.pause(now, Ended::Failed(asked), (self.chance)());
        self.phase = Phase::Waiting(now + pause, offer);
    }

    /// Sends the collected candidates, if the session accepts candidates and no request is pending.
    fn trickle(&mut self, now: Instant) {
        let Phase::Up(session) = &mut self.phase else { return };
        let Some((url, headers, body)) = session.next_fragment() else { return };
        let id = self.request("PATCH", &url, headers, body);
        if let Phase::Up(session) = &mut self.phase {
            session.patching(now, id);
        }
    }

    /// Ends the session; an offer without an answer is given up, but its response is awaited for a while.
    fn close(&mut self, now: Instant) {
        self.give_up(now);
        self.ending.close(now);
    }

    fn timeout(&mut self, now: Instant) {
        if let Phase::Up(session) = &mut self.phase {
            self.outputs.extend(session.handle_timeout(now).map(Out::Abandon));
        }
        self.proceed(now);
        for requests in self.ending.expired(now) {
            for (request, url) in requests {
                self.outputs.push_back(Out::Abandon(request));
                self.not_ended(&url, "no response came in time");
            }
        }
    }
}

impl Signaller for Whip {
    fn handle(&mut self, now: Instant, input: In) {
        match input {
            In::Response(id, result) => self.response(now, id, result),
            In::Timeout => self.timeout(now),
            _ if self.ending.is_closed() => {}
            // The protocol has no registration and no calls: the first request is the offer.
            In::Register => self.registered(),
            In::Call(_) => self.report(Event::Accepted),
            In::Send { message: PeerMessage::Description(offer), .. } if offer.kind == SdpKind::Offer => {
                self.offered(now, &offer.sdp);
            }
            In::Send { message: PeerMessage::Candidate(candidate), .. } => {
                if let Phase::Up(session) = &mut self.phase {
                    session.add(candidate.candidate);
                    self.trickle(now);
                }
            }
            In::Ask(ServerRequest::Token(token)) => self.authorization = Some(format!("Bearer {}", token.0)),
            In::Close => self.close(now),
            In::Send { .. } | In::Application(..) | In::Ask(_) | In::RenewIceServers => {}
            In::Reconnect(_) | In::Release(_) | In::Opened(..) | In::Frame(..) | In::Failed(..) => {}
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Ending { until: at, .. } | Phase::Waiting(at, _) => Some(*at),
            Phase::Up(session) => session.poll_timeout(),
            Phase::Idle | Phase::Posting { .. } => None,
        };
        own.into_iter().chain(self.ending.poll_timeout()).min()
    }

    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}
