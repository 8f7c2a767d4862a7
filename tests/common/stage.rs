//! The stage of most tests: a server, a folder for the state of all programs, and clients of that server.

use std::net::SocketAddr;
use std::path::Path;

use super::browser::{Browser, foreign_page};
use super::{Namespace, Program, Received, SMALL, WebSocket, ws};

/// A server and the folder of its clients.
pub struct Stage {
    home: tempfile::TempDir,
    server: Option<Program>,
    /// Address of the page, with a slash at its end.
    pub link: String,
    /// The same as `ws://`, without the slash.
    pub url: String,
}

impl Stage {
    /// Starts a server on a free port of loopback, which stays free for [`Stage::serve_again`].
    pub fn new() -> Self {
        Self::serving(&[], &[])
    }

    /// The same with these options and variables of the environment.
    pub fn serving(options: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listen = super::free_address().to_string();
        let serve = [&["serve", "--listen", &listen], options].concat();
        let mut server = Program::start_with(home.path(), &serve, variables);
        let link = server.link();
        Self { home, server: Some(server), url: ws(&link), link }
    }

    /// Starts a server on port 7000 of a machine of the test's own, with these options.
    pub fn within(namespace: &Namespace, options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let serve = [&["serve", "--plain", "--listen", "0.0.0.0:7000"], options].concat();
        let mut server = Program::start_in(namespace, home.path(), &serve);
        let link = server.link();
        Self { home, server: Some(server), url: ws(&link), link }
    }

    /// Starts a host, which is the server and a client in one program; `change` completes its command line.
    pub fn hosting(change: impl for<'a> FnOnce(Client<'a>) -> Client<'a>) -> (Self, Program) {
        let home = tempfile::tempdir().unwrap();
        let host = Client::new(home.path(), &["host", "--listen", "127.0.0.1:0"]);
        let mut host = change(host).start();
        let link = host.link();
        let link = link[..link.find('?').unwrap_or(link.len())].to_owned();
        (Self { home, server: None, url: ws(&link), link }, host)
    }

    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("ws://").parse().unwrap()
    }

    /// Returns a link to the page with this query, or to another path.
    pub fn page(&self, query: &str) -> String {
        format!("{}{query}", self.link)
    }

    /// Returns a registered peer in the test's own hands.
    pub fn peer(&self, id: &str) -> WebSocket {
        let mut peer = WebSocket::connect(&self.url);
        peer.register(id);
        peer
    }

    /// Returns the folder of all programs.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the path of a file in that folder.
    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// Ends the server with this signal; returns its exit code.
    pub fn end_server(&mut self, signal: &str) -> i32 {
        let server = self.server.take().expect("a server");
        server.signal(signal);
        server.end().0
    }

    /// Starts a server again, at the address of the first.
    pub fn serve_again(&mut self) {
        let address = self.url.trim_start_matches("ws://");
        let mut server = Program::start(self.home.path(), &["serve", "--listen", address]);
        server.link();
        self.server = Some(server);
    }

    /// Returns a client of this server with that command and its arguments.
    pub fn client(&self, command: &[&str]) -> Client<'_> {
        Client::new(self.home.path(), command).server(&self.url)
    }

    /// Returns a client that waits for calls.
    pub fn answer(&self, id: &str) -> Client<'_> {
        self.client(&["answer"]).id(id)
    }

    /// Returns a client that calls `peer`.
    pub fn call(&self, peer: &str) -> Client<'_> {
        self.client(&["call", peer])
    }

    /// Returns a client that enters the room `attic`.
    pub fn join(&self, id: &str) -> Client<'_> {
        self.client(&["join", "attic"]).id(id)
    }

    /// Opens the page in a new browser, with this query, and presses the button of the link.
    pub fn enter(&self, query: &str) -> Browser {
        let browser = Browser::start();
        browser.enter(&self.page(query));
        browser
    }

    /// Opens a page of the server that does nothing by itself: a place for the script of another page.
    pub fn empty_page(&self) -> Browser {
        let browser = Browser::start();
        browser.open(&self.page("health"));
        browser
    }

    /// Begins a call between the client `bob` and a page, in an empty page, that knows nothing of roomtone. The page calls, or
    /// is called.
    pub fn call_with_foreign_page(
        &self,
        browser: &Browser,
        kinds: &[&str],
        page_calls: bool,
        received: &Received,
    ) -> Program {
        let page = foreign_page(kinds, page_calls.then_some("bob"));
        if page_calls {
            let bob = self.answer("bob").receiving(received).ready();
            browser.run(&page);
            return bob;
        }
        browser.run(&page);
        browser.wait("globalThis.registered");
        self.call("page").id("bob").receiving(received).start()
    }
}

/// A client that is about to start. It sends [`SMALL`] media and shows nothing if nothing else is said.
#[must_use]
pub struct Client<'a> {
    home: &'a Path,
    namespace: Option<&'a Namespace>,
    variables: Vec<(String, String)>,
    command: Vec<String>,
    server: Option<String>,
    media: Vec<String>,
    outputs: Vec<String>,
    more: Vec<String>,
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl<'a> Client<'a> {
    /// Returns a client with this command and its arguments, whose state is in the folder `home`.
    pub fn new(home: &'a Path, command: &[&str]) -> Self {
        Self {
            home,
            namespace: None,
            variables: vec![],
            command: owned(command),
            server: None,
            media: owned(&SMALL),
            outputs: owned(&["--headless"]),
            more: vec![],
        }
    }

    pub fn id(self, id: &str) -> Self {
        self.with(&["--id", id])
    }

    /// Sets the server in place of the stage's.
    pub fn server(mut self, url: &str) -> Self {
        self.server = Some(url.to_owned());
        self
    }

    /// Puts the client on a machine of the test's own, from which it reaches the server at that address.
    pub fn within(mut self, namespace: &'a Namespace, address: &str) -> Self {
        self.namespace = Some(namespace);
        self.server(&format!("ws://{address}:7000"))
    }

    /// Adds a variable to the environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds options.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.more.extend(owned(options));
        self
    }

    /// Sets what it sends and receives, in place of [`SMALL`].
    pub fn media(mut self, options: &[&str]) -> Self {
        self.media = owned(options);
        self
    }

    /// Neither sends nor captures media.
    pub fn without_media(self) -> Self {
        self.media(&["--video", "none", "--audio", "none"])
    }

    /// Writes what it receives there.
    pub fn receiving(mut self, received: &Received) -> Self {
        self.outputs = received.options().to_vec();
        self
    }

    /// Sets the outputs, in place of `--headless`.
    pub fn outputs(mut self, options: &[&str]) -> Self {
        self.outputs = owned(options);
        self
    }

    pub fn start(self) -> Program {
        let server = self.server.iter().flat_map(|url| ["--server", url.as_str()]);
        let rest = [&self.media, &self.outputs, &self.more].into_iter().flatten().map(String::as_str);
        let args: Vec<&str> = self.command.iter().map(String::as_str).chain(server).chain(rest).collect();
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match self.namespace {
            Some(namespace) => Program::start_in(namespace, self.home, &args),
            None => Program::start_with(self.home, &args, &variables),
        }
    }

    /// Starts it, and waits until it is registered or, with `join`, in the room.
    pub fn ready(self) -> Program {
        let event = if self.command[0] == "join" { "room" } else { "registered" };
        let mut program = self.start();
        program.expect(event, &[]);
        program
    }
}
