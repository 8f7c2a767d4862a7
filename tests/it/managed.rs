//! Managed connections: what the library gives to programs that are no `roomtone`.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::common::{Mood, Moody, Stage, in_time, settled, wait_for};
use roomtone::app::pool::{Memory, Pool, PoolEvent, PoolOptions};
use roomtone::media::capture::SourceConfig;
use roomtone::media::receive::Track;
use roomtone::media::webrtc::data_channel::{Channel, ChannelConfig, Message};
use roomtone::media::{Rates, Stream};
use roomtone::protocol::{ParticipantId, PeerId};
use roomtone::sdp::Kind;
use roomtone::signalling::Target;
use roomtone::tls::Trust;
use smol::future::or;

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

async fn stream(kinds: &[Kind]) -> Stream {
    let sources: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let name = if *kind == Kind::Video { "test" } else { "tone" };
            (*kind, SourceConfig { size: Some((160, 120)), fps: 15, ..SourceConfig::named(name) })
        })
        .collect();
    let (failures, _) = smol::channel::bounded(16);
    Stream::start(&sources, Rates::fixed(300_000), failures).await.unwrap()
}

/// A pool, and what happened in it that nobody asked about yet.
struct Member {
    pool: Pool,
    seen: RefCell<Vec<PoolEvent>>,
}

impl From<Pool> for Member {
    fn from(pool: Pool) -> Self {
        Self { pool, seen: RefCell::default() }
    }
}

impl std::ops::Deref for Member {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

fn enter(memory: &Memory, name: &str) -> Member {
    Pool::over(memory.join(id(name)), PoolOptions::default()).unwrap().into()
}

/// The first event that `wanted` makes something of; others wait to be asked about.
async fn expect<T>(member: &Member, what: &str, mut wanted: impl FnMut(&PoolEvent) -> Option<T>) -> T {
    let mut seen = member.seen.take();
    let before = seen.iter().position(|event| wanted(event).is_some()).map(|at| seen.remove(at));
    member.seen.replace(seen);
    if let Some(found) = before.and_then(|event| wanted(&event)) {
        return found;
    }
    in_time(what, async {
        loop {
            let event = member.next().await.unwrap_or_else(|| panic!("no {what}, and nothing more"));
            if let Some(found) = wanted(&event) {
                return found;
            }
            member.seen.borrow_mut().push(event);
        }
    })
    .await
}

async fn track(pool: &Member, kind: Kind) -> (ParticipantId, Track) {
    expect(pool, &format!("a track of {kind}"), |event| match event {
        PoolEvent::Track(from, track) if track.kind() == kind => Some((from.clone(), track.clone())),
        _ => None,
    })
    .await
}

/// Opens a channel with one peer; its end of it.
async fn channel_again(pool: &Member, with: &str, label: &str, peer: &Member) -> Channel {
    pool.peer(&id(with)).open_channel(ChannelConfig::reliable(label)).await;
    channel(peer, "ann", label).await
}

async fn any_track(pool: &Member) -> (ParticipantId, Track) {
    expect(pool, "a track", |event| match event {
        PoolEvent::Track(from, track) => Some((from.clone(), track.clone())),
        _ => None,
    })
    .await
}

/// The channel of that label with that peer.
async fn channel(pool: &Member, with: &str, label: &str) -> Channel {
    expect(pool, &format!("the channel {label} with {with}"), |event| match event {
        PoolEvent::DataChannel(peer, channel) if channel.label() == label && *peer == id(with) => {
            Some(channel.clone())
        }
        _ => None,
    })
    .await
}

/// Waits for ten more frames.
fn moves(track: &Track) {
    let goal = track.counters.frames.load(Relaxed) + 10;
    wait_for("frames", || (track.counters.frames.load(Relaxed) >= goal).then_some(()));
}

#[test]
fn what_is_added_once_goes_to_all_and_is_taken_from_all() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let memory = Memory::default();
        let enter = |name: &str| enter(&memory, name);
        // To nobody yet.
        let ann = enter("ann");
        let first = stream(&[Kind::Video]).await;
        ann.add_stream(&first).await;
        let (bob, cat) = (enter("bob"), enter("cat"));
        for other in [&bob, &cat] {
            let (from, track) = track(other, Kind::Video).await;
            assert_eq!(from, (&id("ann")).into());
            moves(&track);
        }
        // To both, while they are there; and of one who sent nothing, to one alone.
        let second = stream(&[Kind::Audio]).await;
        ann.add_stream(&second).await;
        let heard = [track(&bob, Kind::Audio).await.1, track(&cat, Kind::Audio).await.1];
        for track in &heard {
            moves(track);
        }
        let own = stream(&Kind::ALL).await;
        bob.peer(&id("cat")).add_stream(&own).await;
        for _ in Kind::ALL {
            let (from, track) = any_track(&cat).await;
            assert_eq!(from, (&id("bob")).into());
            moves(&track);
        }
        // Away from all, and back.
        ann.remove_stream(&first).await;
        for (other, heard) in [&bob, &cat].into_iter().zip(&heard) {
            let ended = |event: &PoolEvent| match event {
                PoolEvent::TrackEnded(_, track) => Some(track.clone()),
                _ => None,
            };
            let ended = expect(other, "the end of the video", ended).await;
            // Frames that were on their way still arrive.
            settled("end of its frames", Duration::from_secs(1), || ended.counters.frames.load(Relaxed));
            moves(heard);
        }
        ann.add_stream(&first).await;
        for other in [&bob, &cat] {
            moves(&track(other, Kind::Video).await.1);
        }
        // A channel with all, one of them a latecomer; messages of both kinds, both ways.
        ann.open_channel(ChannelConfig::reliable("notes")).await;
        let dan = enter("dan");
        for (other, name) in [(&bob, "bob"), (&cat, "cat"), (&dan, "dan")] {
            let (theirs, ours) = (channel(other, "ann", "notes").await, channel(&ann, name, "notes").await);
            let talk = async {
                assert!(theirs.send(&Message::Binary(vec![1, 2, 3])).await);
                assert_eq!(ours.receive().await, Some(Message::Binary(vec![1, 2, 3])));
                assert!(ours.send(&Message::Text("noted".into())).await);
                assert_eq!(theirs.receive().await, Some(Message::Text("noted".into())));
            };
            in_time("the messages", talk).await;
        }
        let theirs = channel_again(&ann, "bob", "more", &bob).await;
        ann.close_channel("more").await;
        in_time("the end of the channel", theirs.wait_for_end()).await;
        assert!(theirs.ended_in_order().await);
        moves(&track(&dan, Kind::Video).await.1);
        // A new path, all of it again.
        ann.peer(&id("dan")).renew().await;
        moves(&track(&dan, Kind::Video).await.1);
        assert!(ann.peer(&id("dan")).stats().await.unwrap().video_frames_sent > 0);
        // A member that leaves is gone for the others.
        cat.pool.leave().await;
        let gone = |event: &PoolEvent| matches!(event, PoolEvent::Close(peer, _) if *peer == id("cat"));
        for other in [&ann, &bob] {
            expect(other, "the end of cat", |event| gone(event).then_some(())).await;
        }
        assert!(ann.peer(&id("cat")).stats().await.is_none());
        // A pool that is dropped leaves, too; a client that registers a name in use takes it over.
        drop(dan);
        let gone = |event: &PoolEvent| matches!(event, PoolEvent::Close(peer, _) if *peer == id("dan"));
        expect(&ann, "the end of dan", |event| gone(event).then_some(())).await;
        let again = enter("bob");
        drop(bob);
        moves(&track(&again, Kind::Video).await.1);
    });
}

#[test]
fn streams_added_by_all_at_once_come_to_all() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let memory = Memory::default();
        let pools = ["ann", "bob", "cat"].map(|name| enter(&memory, name));
        for pool in &pools {
            expect(pool, "a connection", |event| matches!(event, PoolEvent::Connected(_)).then_some(()))
                .await;
        }
        // The streams have different kinds, so that only the right m-line fits each.
        let streams = [stream(&[Kind::Video]).await, stream(&[Kind::Audio]).await, stream(&Kind::ALL).await];
        for (pool, stream) in pools.iter().zip(&streams) {
            pool.add_stream(stream).await;
        }
        for (pool, expected) in pools.iter().zip([3, 3, 2]) {
            for _ in 0..expected {
                moves(&any_track(pool).await.1);
            }
        }
    });
}

#[test]
fn a_program_of_ones_own_is_in_a_room_and_a_pool_of_the_server() {
    let stage = Stage::new();
    let mut ann = stage.join("ann").ready();
    for (server, name) in [(stage.url.clone(), "own-1"), (format!("ssp+{}/ssp", stage.url), "own-2")] {
        smol::block_on(async {
            let target = Target::parse(&server, Trust::System).unwrap();
            let room = "attic".parse().unwrap();
            let pool = Pool::join(target, id(name), room, PoolOptions::default()).await.unwrap();
            let pool = Member::from(pool);
            let stream = stream(&Kind::ALL).await;
            pool.add_stream(&stream).await;
            for _ in Kind::ALL {
                let (from, track) = any_track(&pool).await;
                assert_eq!(from, (&id("ann")).into());
                moves(&track);
            }
            ann.expect_all(&[("media", &[("kind", "video")]), ("media", &[("kind", "audio")])]);
            let late = pool.peer(&id("ann"));
            late.open_channel(ChannelConfig::reliable("late")).await;
            let late = channel(&pool, "ann", "late").await;
            assert!(late.send(&Message::Text("from a program".into())).await);
            ann.expect("message", &[("channel", "late"), ("text", "from a program")]);
            pool.pool.leave().await;
        });
        ann.expect("peer", &[("state", "left")]);
    }
}

#[test]
fn a_connection_with_nothing_on_it_stands() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let memory = Memory::default();
        let enter = |name: &str| enter(&memory, name);
        let (ann, bob, cat) = (enter("ann"), enter("bob"), enter("cat"));
        // Nothing ever, nothing any more, and nothing but a channel.
        let own = stream(&[Kind::Audio]).await;
        ann.peer(&id("bob")).open_channel(ChannelConfig::reliable("quiet")).await;
        for pool in [&ann, &bob, &cat] {
            expect(pool, "a connection", |event| matches!(event, PoolEvent::Connected(_)).then_some(()))
                .await;
        }
        let peer = cat.peer(&id("ann"));
        peer.add_stream(&own).await;
        moves(&track(&ann, Kind::Audio).await.1);
        peer.remove_stream(&own).await;
        let quiet = async {
            loop {
                let next = or(or(ann.next(), bob.next()), cat.next()).await;
                let broken = matches!(next, Some(PoolEvent::Reconnecting(_) | PoolEvent::Close(..)) | None);
                assert!(!broken, "{next:?}");
            }
        };
        let time = async {
            // waits for: the 12 s of silence that break a path whose pauses are not known, and a margin
            smol::Timer::after(Duration::from_secs(14)).await;
        };
        or(quiet, time).await;
        assert!(peer.stats().await.is_some());
    });
}

#[test]
fn what_cannot_be_joined_says_so() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let target = Target::parse("ws://127.0.0.1:9", Trust::System).unwrap();
        let room = "attic".parse().unwrap();
        let error = Pool::join(target, id("ann"), room, PoolOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    });
}

#[test]
fn a_server_that_falls_silent_is_left_and_joined_again() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        for protocol in ["ws", "ssp+ws", "ssp+http"] {
            let server = Moody::start(|number| if number == 0 { Mood::Freeze } else { Mood::Good });
            let target = Target::parse(&format!("{protocol}://{}", server.address), Trust::System).unwrap();
            let target = target.silence(Duration::from_secs(1));
            let room = "attic".parse().unwrap();
            let pool = Pool::join(target, id("ann"), room, PoolOptions::default()).await.unwrap();
            assert!(matches!(pool.next().await, Some(PoolEvent::Join { .. })));
            assert!(matches!(pool.next().await, Some(PoolEvent::Gone)), "{protocol}");
            assert!(matches!(pool.next().await, Some(PoolEvent::Join { .. })), "{protocol}");
            pool.leave().await;
        }
    });
}
