//! Measurements of how often clients connect to a server that ends every connection: the tables of docs/reconnect.md
//! and docs/reconnect-page.md. `cargo test --test it -- --ignored --nocapture connects::` prints both.

use std::time::{Duration, Instant};

use crate::common::browser::Browser;
use crate::common::{Mood, Moody, Stage, until};
use crate::reconnect::{CLIENTS, client_of, registered_then_closed};

const MINUTE: Duration = Duration::from_secs(60);

/// Returns each treatment of a connection, with its name.
fn cases() -> [(&'static str, Mood); 12] {
    [
        ("accepts and closes", Mood::Close),
        ("says `HELLO`, closes", Mood::HelloThenClose),
        ("says `SESSION_FROM`, closes", Mood::SessionThenClose),
        ("says `ROOM_OK` or `rtc:joined`, closes", Mood::JoinedThenClose),
        ("accepts and is silent", Mood::Silence),
        ("resets", Mood::Reset),
        ("200 with a page", Mood::Http("200 OK")),
        ("401", Mood::Http("401 Unauthorized")),
        ("403", Mood::Http("403 Forbidden")),
        ("404", Mood::Http("404 Not Found")),
        ("429", Mood::Http("429 Too Many Requests")),
        ("503", Mood::Http("503 Service Unavailable")),
    ]
}

/// Waits until a minute has passed since the first connect to the server.
fn wait_a_minute(server: &Moody) {
    until("minute of connects", 3 * MINUTE, || {
        let first = server.connects().first().map(Instant::elapsed);
        first.filter(|passed| *passed > MINUTE).ok_or(first)
    });
}

/// Returns how many connects began within `length` of the first one.
fn within(connects: &[Instant], length: Duration) -> usize {
    let Some(first) = connects.first() else { return 0 };
    connects.iter().filter(|at| at.duration_since(*first) <= length).count()
}

#[test]
#[ignore = "measures for a minute"]
fn native_clients() {
    let home = tempfile::tempdir().unwrap();
    let start = |name: &'static str, args: &[&str], mood: &Mood| {
        let mood = mood.clone();
        let server =
            Moody::start(move |number| if number == 0 { registered_then_closed(name) } else { mood.clone() });
        (client_of(home.path(), &server, args), server)
    };
    let rows: Vec<_> = cases()
        .iter()
        .map(|(case, mood)| (*case, CLIENTS.map(|(name, args, _)| start(name, args, mood))))
        .collect();
    rows.iter().flat_map(|(_, row)| row).for_each(|(_, server)| wait_a_minute(server));
    eprintln!("| the server | answer | join | ssp | socket.io |\n|---|---|---|---|---|");
    for (case, row) in rows {
        let counts = row.map(|(_, server)| within(&server.connects(), MINUTE));
        assert!(counts.iter().all(|count| (2..=14).contains(count)), "{case}: {counts:?}");
        eprintln!("| {case} | {} |", counts.map(|count| count.to_string()).join(" | "));
    }
}

#[test]
#[ignore = "measures for some minutes"]
fn a_page() {
    let stage = Stage::new();
    eprintln!("| the server | 15 s | 60 s | asked for the reason |\n|---|---|---|---|");
    for cases in cases().chunks(4) {
        let pages: Vec<_> = cases
            .iter()
            .map(|(case, mood)| {
                let mood = mood.clone();
                let joins = matches!(mood, Mood::JoinedThenClose);
                let server = Moody::before(stage.address(), move |number| match number {
                    0 if !joins => Mood::HelloThenClose,
                    _ => mood.clone(),
                });
                let browser = Browser::start();
                if joins {
                    browser.enter(&format!("http://{}/?room=attic", server.address));
                } else {
                    browser.open(&format!("http://{}/", server.address));
                }
                (case, server, browser)
            })
            .collect();
        pages.iter().for_each(|(_, server, _)| wait_a_minute(server));
        for (case, server, _) in pages {
            let connects = server.connects();
            let [short, long] = [Duration::from_secs(15), MINUTE].map(|length| within(&connects, length));
            let asked = within(&server.asked(), MINUTE);
            eprintln!("| {case} | {short} | {long} | {asked} |");
            assert!(short <= 9 && (2..=14).contains(&long), "{case}: {short}, {long}");
        }
    }
}
