//! The STUN and TURN servers of a client: its own, and those that the signalling server names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use smol::Task;
use smol::future::pending;

use super::options::PathOptions;
use super::{Event, Sink};
use crate::base::lock::lock;
use crate::base::net::Network;
use crate::base::tasks::Tasks;
use crate::base::timeout::timeout;
use crate::media::MediaError;
use crate::media::transport::IceConfig;
use crate::protocol::{IceKind, IceServer, IceUrl};
use crate::sdp::Reach;
use crate::sdp::reach;
use crate::signalling;
use crate::signalling::turn::{self, Tunnel, TurnError};
use crate::tls::Trust;

#[derive(Debug, Default)]
struct State {
    /// Servers that the signalling server announced last, without those that are not used.
    announced: Vec<IceServer>,
    /// Servers that are not used and were reported, at most [`MAX_REFUSED`].
    refused: BTreeSet<String>,
    /// Warnings about such servers that are not reported yet.
    warnings: VecDeque<String>,
    tunnels: BTreeMap<String, Arc<Tunnel>>,
    /// Whether the signalling server runs on this machine or on this link.
    is_local: bool,
    /// Address of the signalling server, if it is known.
    server: Option<IpAddr>,
    /// Time of the next request for fresh servers, before the credentials of the TURN servers expire.
    renew_at: Option<Instant>,
}

impl State {
    /// Closes the tunnels that no connection uses, apart from those to the user's `own` servers and to the announced ones.
    fn close_tunnels(&mut self, own: &[IceServer]) {
        let named: BTreeSet<&String> =
            own.iter().chain(&self.announced).flat_map(|server| &server.urls).collect();
        self.tunnels.retain(|url, tunnel| named.contains(url) || tunnel.is_used());
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ice {
    options: PathOptions,
    /// Whether host names in candidates are looked up.
    mdns: bool,
    state: Mutex<State>,
    /// Lookup of the servers that the signalling server named last, until its result is used.
    admission: smol::lock::Mutex<Option<Task<Admission>>>,
    /// Checks of the user's TURN servers.
    checks: Tasks,
}

/// Servers that the signalling server named, after the lookup.
#[derive(Debug)]
struct Admission {
    /// Servers that are used.
    servers: Vec<IceServer>,
    /// Warnings about the others.
    refused: Vec<String>,
    /// Time until fresh servers should be requested.
    renewal: Option<Duration>,
    tunnels: Vec<(String, Arc<Tunnel>)>,
}

impl Default for Ice {
    fn default() -> Self {
        let mut ice = Self::new(PathOptions::default());
        ice.mdns = false;
        ice
    }
}

impl Ice {
    /// Creates the servers of these options, without checking them.
    pub fn new(options: PathOptions) -> Self {
        let mdns = options.mdns.is_on() && looks_up_mdns();
        let admission = smol::lock::Mutex::new(None);
        Self { options, mdns, state: Mutex::default(), admission, checks: Tasks::new(MAX_CHECKS) }
    }

    /// Creates the servers of these options, and checks the TURN servers among them: a warning reports each that does
    /// not work. If only relays may be used, waits for the checks.
    ///
    /// # Errors
    ///
    /// [`MediaError::NoRelay`] if only relays may be used, and none of the user's works.
    pub(super) async fn start(options: PathOptions, sink: &Sink) -> Result<Self, MediaError> {
        let own = options.servers.list(SystemTime::now());
        let (relay_only, trust) = (options.relay_only.is_on(), options.trust.clone());
        let ice = Self::new(options);
        let tunnels = open_tunnels(&own, &trust, None, &BTreeSet::new()).await;
        ice.lock().tunnels.extend(tunnels);
        let mut tries = Vec::new();
        for (url, server) in relays(&own) {
            let (trust, sink) = (trust.clone(), sink.clone());
            tries.push(smol::spawn(async move { attempt(&url, &server, &trust, None, &sink).await }));
        }
        let is_given = !tries.is_empty();
        if !relay_only {
            for check in tries {
                ice.checks.spawn(check.map(drop));
            }
            return Ok(ice);
        }
        let mut works = false;
        for task in tries {
            works |= task.await;
        }
        match is_given && !works {
            true => Err(MediaError::NoRelay),
            false => Ok(ice),
        }
    }

    /// Waits for `next`, the next event of the signalling channel. The STUN and TURN servers of an event are looked up in
    /// the background; further events wait for that, so that connections are opened with the servers. Cancel-safe if
    /// `next` is.
    pub(super) async fn next_event(
        &self,
        next: impl Future<Output = signalling::Event>,
    ) -> signalling::Event {
        if let Some(warning) = self.admitted().await {
            return signalling::Event::Warning(warning);
        }
        let event = next.await;
        if let signalling::Event::IceServers(servers) = &event {
            self.admit(servers.clone()).await;
        }
        event
    }

    /// Begins to look up the servers that the signalling server names from now on, in place of those before.
    async fn admit(&self, servers: Vec<IceServer>) {
        let (reach, trust) = (self.server_reach(), self.options.trust.clone());
        let open: BTreeSet<_> = self.lock().tunnels.keys().cloned().collect();
        *self.admission.lock().await = Some(smol::spawn(look_up_all(servers, reach, trust, open)));
    }

    /// Waits until the servers named last can be used; returns the next warning about one that is not used, if any.
    async fn admitted(&self) -> Option<String> {
        let mut admission = self.admission.lock().await;
        if let Some(task) = admission.as_mut() {
            let Admission { servers, refused, renewal, tunnels } = task.await;
            *admission = None;
            let mut state = self.lock();
            state.renew_at = renewal.map(|wait| Instant::now() + wait);
            state.announced = servers;
            state.tunnels.extend(tunnels);
            let own = self.options.servers.list(SystemTime::now());
            state.close_tunnels(&own);
            for text in refused {
                if state.refused.len() < MAX_REFUSED && state.refused.insert(text.clone()) {
                    state.warnings.push_back(text);
                }
            }
        }
        self.lock().warnings.pop_front()
    }

    /// Returns the rule for the servers that the signalling server names.
    fn server_reach(&self) -> Reach {
        let mut reach = self.reach();
        reach.allowed.extend(self.lock().server.map(Network::from));
        reach
    }

    /// Completes when the client should request fresh servers; never completes if no credentials expire.
    pub(super) async fn needs_renewal(&self) {
        loop {
            let at = self.lock().renew_at;
            match at {
                Some(at) if at <= Instant::now() => return,
                Some(at) => {
                    smol::Timer::at(at).await;
                }
                None => pending().await,
            }
        }
    }

    /// Notes that a request for fresh servers begins now. If it stays without an answer, the next one is due after
    /// [`RENEW_AGAIN`].
    pub(super) fn renewal_begins(&self) {
        self.lock().renew_at = Some(Instant::now() + RENEW_AGAIN);
    }

    /// Forgets the servers that the signalling server named: webrtcbin keeps each server of its first configuration.
    pub(super) fn forget_announced(&self) {
        self.lock().announced.clear();
    }

    /// Returns the servers of the options and those of the signalling server.
    fn servers(&self) -> Vec<IceServer> {
        let mut servers = self.options.servers.list(SystemTime::now());
        servers.extend(self.lock().announced.clone());
        servers
    }

    /// Returns the settings of a connection that is opened now.
    pub(super) fn config(&self) -> IceConfig {
        let mut servers = self.servers();
        let state = self.lock();
        for url in servers.iter_mut().flat_map(|server| &mut server.urls) {
            if let Some(tunnel) = state.tunnels.get(url) {
                *url = tunnel.url().to_string();
            }
        }
        IceConfig {
            servers,
            relay_only: self.options.relay_only.is_on(),
            tcp: self.options.ice_tcp.is_on(),
            addresses: self.options.interface.as_ref().map(|one| one.0.clone()).unwrap_or_default(),
        }
    }

    /// Records the address of the signalling server; `None` if the address is unknown.
    pub(super) fn server_is_at(&self, address: Option<IpAddr>) {
        let mut state = self.lock();
        (state.is_local, state.server) = (address.is_some_and(reach::is_local), address);
    }

    /// Records that all peers run in this process, so that local addresses are allowed.
    pub(super) fn peers_are_here(&self) {
        self.lock().is_local = true;
    }

    /// Returns the rule for the addresses of peers that are tried.
    pub(super) fn reach(&self) -> Reach {
        Reach { local: self.lock().is_local, allowed: self.options.ice_allow.clone() }
    }

    /// Returns whether host names in candidates are looked up.
    pub(super) fn mdns(&self) -> bool {
        self.mdns
    }

    /// Checks all TURN servers after a connection found no path; a warning reports each that does not work.
    pub(super) fn explain(&self, sink: &Sink) -> impl Future<Output = ()> + Send + 'static {
        let (own, announced) = (self.options.servers.list(SystemTime::now()), self.lock().announced.clone());
        let (trust, reach, sink) = (self.options.trust.clone(), self.server_reach(), sink.clone());
        async move {
            for (servers, reach) in [(own, None), (announced, Some(&reach))] {
                for (url, server) in relays(&servers) {
                    attempt(&url, &server, &trust, reach, &sink).await;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Maximum number of refused servers that are reported.
const MAX_REFUSED: usize = 64;
/// Maximum number of checks of the user's TURN servers.
const MAX_CHECKS: usize = 64;
/// Time limit for finding the address of a server that the signalling server names.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Pause before the next request for fresh servers when a request stayed without an answer.
const RENEW_AGAIN: Duration = Duration::from_secs(600);
/// Minimum and maximum time until fresh servers are requested.
const RENEW_BETWEEN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(12 * 3600));

/// Returns the time until fresh servers should be requested: half the remaining lifetime of the credentials that expire
/// first, clamped to [`RENEW_BETWEEN`]. The other half is a reserve for connections that are opened last. Returns
/// `None` if no credentials expire. If the clocks of the two machines differ so much that the credentials would have
/// expired already or would last for more than two days, returns the maximum.
fn renewal(servers: &[IceServer], since_1970: Duration) -> Option<Duration> {
    let (shortest, longest) = RENEW_BETWEEN;
    let end = servers.iter().filter_map(IceServer::ends).min()?;
    let left = end.saturating_sub(since_1970);
    let is_plausible = left > Duration::ZERO && left <= longest * 4;
    Some(if is_plausible { (left / 2).clamp(shortest, longest) } else { longest })
}

/// Returns the TURN servers of a list, each with its URL.
fn relays(servers: &[IceServer]) -> Vec<(IceUrl, IceServer)> {
    let urls = |server: &IceServer| -> Vec<(IceUrl, IceServer)> {
        let urls = server.urls.iter().filter_map(|url| url.parse::<IceUrl>().ok());
        urls.filter(|url| url.kind != IceKind::Stun).map(|url| (url, server.clone())).collect()
    };
    servers.iter().flat_map(urls).collect()
}

/// Returns the URL with the address that the rule admits in place of a name, or a warning. A server with TLS keeps its
/// name for the certificate: its address is checked at each connection.
async fn look_up(mut url: IceUrl, reach: Reach) -> Result<IceUrl, String> {
    let found = timeout(LOOK_UP, turn::resolve(&url, Some(&reach))).await;
    let seconds = LOOK_UP.as_secs();
    let found = found.ok_or_else(|| format!("no answer of the name service within {seconds} s"));
    match found.and_then(|found| found.map_err(|error| error.to_string())) {
        Ok(at) if url.kind != IceKind::TurnTls => url.host = at.ip().to_string(),
        Ok(_) => {}
        Err(why) => return Err(format!("{url}, which the signalling server names, is not used: {why}")),
    }
    Ok(url)
}

/// Looks up the servers that the signalling server names: leaves out those that the rule `reach` excludes, and opens the
/// tunnels that are not `open` yet. Where possible the checked address replaces a name, which could have another address
/// later.
async fn look_up_all(
    servers: Vec<IceServer>,
    reach: Reach,
    trust: Trust,
    open: BTreeSet<String>,
) -> Admission {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let renewal = renewal(&servers, since_1970);
    let urls = servers.iter().map(|server| server.urls.iter().filter_map(|url| url.parse::<IceUrl>().ok()));
    let lookups: Vec<Vec<_>> =
        urls.map(|urls| urls.map(|url| smol::spawn(look_up(url, reach.clone()))).collect()).collect();
    let (mut admitted, mut refused) = (vec![], vec![]);
    for (mut server, lookups) in servers.into_iter().zip(lookups) {
        server.urls.clear();
        for lookup in lookups {
            match lookup.await {
                Ok(url) => server.urls.push(url.to_string()),
                Err(warning) => refused.push(warning),
            }
        }
        admitted.push(server);
    }
    admitted.retain(|server| !server.urls.is_empty());
    // The name of a server that is left out may be found later.
    let renewal = match refused.is_empty() {
        true => renewal,
        false => Some(renewal.unwrap_or(RENEW_AGAIN).min(RENEW_AGAIN)),
    };
    let tunnels = open_tunnels(&admitted, &trust, Some(reach), &open).await;
    Admission { servers: admitted, refused, renewal, tunnels }
}

/// Opens tunnels to the servers that libnice cannot reach, apart from those that are `open`; returns them by URL.
async fn open_tunnels(
    servers: &[IceServer],
    trust: &Trust,
    reach: Option<Reach>,
    open: &BTreeSet<String>,
) -> Vec<(String, Arc<Tunnel>)> {
    let mut tunnels = vec![];
    for (url, _) in relays(servers).into_iter().filter(|(url, _)| url.kind == IceKind::TurnTls) {
        let given = servers.iter().flat_map(|server| &server.urls);
        let texts = given.filter(|text| text.parse() == Ok(url.clone())).cloned();
        let missing: Vec<String> = texts.filter(|text| !open.contains(text)).collect();
        if missing.is_empty() {
            continue;
        }
        match Tunnel::open(url, trust.clone(), reach.clone()).await {
            Ok(tunnel) => {
                let tunnel = Arc::new(tunnel);
                tunnels.extend(missing.into_iter().map(|text| (text, tunnel.clone())));
            }
            Err(error) => tracing::warn!("no tunnel to a TURN server: {error}"),
        }
    }
    tunnels
}

/// Returns whether this machine's resolver knows mDNS; otherwise the names would go to name servers.
fn looks_up_mdns() -> bool {
    let config = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    config.lines().any(|line| line.trim_start().starts_with("hosts:") && line.contains("mdns"))
}

/// Checks a TURN server, and warns if it does not work; returns whether it works.
async fn attempt(
    url: &IceUrl,
    server: &IceServer,
    trust: &Trust,
    reach: Option<&Reach>,
    sink: &Sink,
) -> bool {
    let user = server.username.as_deref().zip(server.credential.as_ref());
    let result: Result<(), TurnError> = turn::probe(url, user, trust, reach).await;
    if let Err(error) = &result {
        sink(&Event::Warning { text: format!("the TURN server {url}: {error}") });
    }
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use smol::channel::bounded;
    use smol::future::or;

    use super::*;

    /// Returns the URLs that are used of those that a signalling server at `server` names, and the number of warnings.
    fn used(server: Option<&str>, allowed: &[&str], urls: &[&str]) -> (Vec<String>, usize) {
        let ice_allow = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let ice = Ice::new(PathOptions { ice_allow, ..PathOptions::default() });
        ice.server_is_at(server.map(|text| text.parse().unwrap()));
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let named = vec![IceServer { urls, username: None, credential: None }];
        let warnings = |named| {
            smol::block_on(async {
                ice.admit(named).await;
                let mut count = 0;
                while ice.admitted().await.is_some() {
                    count += 1;
                }
                count
            })
        };
        let count = warnings(named.clone());
        assert_eq!(warnings(named), 0, "each is reported once");
        (ice.config().servers.into_iter().flat_map(|server| server.urls).collect(), count)
    }

    #[test]
    fn servers_that_the_signalling_server_names_pass_the_rule_for_a_peers_addresses() {
        let named = [
            "stun:192.0.2.1:3478",
            "stun:127.0.0.1:3478",
            "turn:169.254.169.254:80?transport=tcp",
            "turn:10.0.0.5:22?transport=tcp",
            "turn:10.0.0.5:3478?transport=udp",
            "stun:[::ffff:127.0.0.1]:5000",
        ];
        let [public, loopback, _, low, private, _] = named.map(str::to_owned);
        let elsewhere = vec![public.clone(), private.clone()];
        assert_eq!(used(Some("192.0.2.9"), &[], &named), (elsewhere.clone(), 4));
        assert_eq!(used(None, &[], &named), (elsewhere, 4));
        let (here, refused) = used(Some("127.0.0.1"), &[], &named);
        assert!(here.contains(&loopback) && refused == 2, "{here:?}");
        // The signalling server's own address, and one that the user allows, have any port.
        for (server, allowed) in [("10.0.0.5", &[][..]), ("192.0.2.9", &["10.0.0.0/8"])] {
            assert!(used(Some(server), allowed, &named).0.contains(&low), "{server}");
        }
    }

    #[test]
    fn a_name_passes_with_its_address_only() {
        let (urls, refused) = used(Some("192.0.2.9"), &[], &["stun:localhost:3478", "turns:localhost:5349"]);
        assert_eq!((urls, refused), (vec![], 2));
        let (urls, _) = used(Some("127.0.0.1"), &[], &["stun:localhost:3478"]);
        assert!(urls == ["stun:127.0.0.1:3478"] || urls == ["stun:[::1]:3478"], "{urls:?}");
    }

    #[test]
    fn a_tunnel_to_a_server_that_is_named_no_more_is_closed_once_nothing_uses_it() {
        let ice = Ice::new(PathOptions::default());
        ice.server_is_at(Some("127.0.0.1".parse().unwrap()));
        let name = |port: u16| {
            let urls = vec![format!("turns:127.0.0.1:{port}")];
            smol::block_on(async {
                ice.admit(vec![IceServer { urls, username: None, credential: None }]).await;
                assert_eq!(ice.admitted().await, None);
            });
            let tunnels = ice.lock().tunnels.clone();
            tunnels
                .into_iter()
                .map(|(url, tunnel)| (url.contains(&port.to_string()), tunnel))
                .collect::<Vec<_>>()
        };
        // A server that accepts connections and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let first = name(silent.local_addr().unwrap().port());
        assert_eq!(first.len(), 1);
        let url = first[0].1.url();
        let used = std::net::TcpStream::connect((url.host.as_str(), url.port)).unwrap();
        let _server = silent.accept().unwrap();
        drop(first);
        assert_eq!(name(50_001).len(), 2, "a connection uses the first tunnel");
        drop(used);
        let ends = Instant::now() + Duration::from_secs(60);
        while name(50_002).len() > 1 {
            assert!(Instant::now() < ends, "the tunnels stay");
            std::thread::yield_now();
        }
    }

    #[test]
    fn announced_servers_are_forgotten_and_replaced_by_an_empty_list() {
        let mut options = PathOptions::default();
        options.servers.stun = vec!["stun:192.0.2.1:3478".into()];
        let ice = Ice::new(options);
        let announce = |urls: &[&str]| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let servers = vec![IceServer { urls, username: None, credential: None }];
            smol::block_on(async {
                ice.admit(servers).await;
                assert_eq!(ice.admitted().await, None);
            });
        };
        let count = || ice.config().servers.iter().map(|server| server.urls.len()).sum::<usize>();
        announce(&["stun:192.0.2.2:3478"]);
        assert_eq!(count(), 2);
        ice.forget_announced();
        assert_eq!(count(), 1, "the user's own stays");
        announce(&["stun:192.0.2.2:3478"]);
        announce(&[]);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_slow_lookup_delays_further_events_of_the_server_and_nothing_else() {
        let (ice, (done, looked_up)) = (Ice::new(PathOptions::default()), bounded(1));
        smol::block_on(async {
            // A name service that answers when the test says.
            let lookup = async move { looked_up.recv().await.unwrap() };
            *ice.admission.lock().await = Some(smol::spawn(lookup));
            let next = || ice.next_event(std::future::ready(signalling::Event::Registered));
            // The loop handles something else meanwhile, more than once.
            for _ in 0..3 {
                assert_eq!(or(next().map(Some), async { None }).await, None);
            }
            let urls = vec!["stun:192.0.2.1:3478".to_owned()];
            let servers = vec![IceServer { urls, username: None, credential: None }];
            let refused = vec!["no answer".to_owned()];
            done.send(Admission { servers, refused, renewal: None, tunnels: vec![] }).await.unwrap();
            assert_eq!(next().await, signalling::Event::Warning("no answer".into()));
            assert_eq!(ice.config().servers.len(), 1);
            assert_eq!(next().await, signalling::Event::Registered);
        });
    }

    #[test]
    fn fresh_credentials_are_requested_at_half_of_their_lifetime() {
        let now = Duration::from_secs(1_700_000_000);
        let server = |user: Option<&str>| IceServer {
            urls: vec!["turn:a".into()],
            username: user.map(str::to_owned),
            credential: None,
        };
        let renewed = |users: &[Option<&str>]| {
            renewal(&users.iter().map(|user| server(*user)).collect::<Vec<_>>(), now)
                .map(|wait| wait.as_secs())
        };
        // Credentials issued by roomtone itself last for a day.
        assert_eq!(renewed(&[Some("1700086400:roomtone")]), Some(43_200));
        assert_eq!(
            renewed(&[Some("1700003600"), Some("1700086400:x"), None]),
            Some(1800),
            "the first to end"
        );
        assert_eq!(renewed(&[Some("1700000010:x")]), Some(300), "not all the time");
        assert_eq!(renewed(&[Some("ann"), None]), None);
        assert_eq!(
            (renewed(&[Some("1600000000:x")]), renewed(&[Some("9700000000:x")])),
            (Some(43_200), Some(43_200))
        );
    }
}
