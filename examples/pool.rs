//! A test picture and a tone for everybody in a pool, and a word of what everybody else sends.
//!
//! `cargo run --example pool -- ssp+ws://127.0.0.1:8443/ssp attic` (or `ws://127.0.0.1:8443` and a room)
#![allow(clippy::print_stdout, reason = "an example")]

use roomtone::app::{Pool, PoolEvent, PoolOptions};
use roomtone::media::capture::SourceConfig;
use roomtone::media::webrtc::data_channel::{ChannelConfig, Message};
use roomtone::media::{Rates, Stream};
use roomtone::sdp::Kind;
use roomtone::signalling::Target;
use roomtone::tls::Trust;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(room)) = (args.next(), args.next()) else {
        return Err("usage: pool SERVER POOL".into());
    };
    smol::block_on(async {
        roomtone::media::init()?;
        let target = Target::parse(&server, Trust::System)?;
        let pool = Pool::join(target, "example".parse()?, room.parse()?, PoolOptions::default()).await?;

        // A stream that is added once goes to all peers, also to those that join later.
        let sources =
            [(Kind::Video, SourceConfig::named("test")), (Kind::Audio, SourceConfig::named("tone"))];
        let (failed, _failures) = smol::channel::bounded(16);
        let stream = Stream::start(&sources, Rates::up_to(1_500_000), failed).await?;
        pool.add_stream(&stream).await;
        pool.open_channel(ChannelConfig::reliable("greetings")).await;

        while let Some(event) = pool.next().await {
            match event {
                PoolEvent::Join { participants, .. } => println!("in, with {participants:?}"),
                PoolEvent::Track(participant, track) => println!("{participant} sends {}", track.codec),
                PoolEvent::TrackEnded(participant, track) => println!("{participant} stops {}", track.codec),
                PoolEvent::Describe(participant, description) => println!("{participant} is {description}"),
                PoolEvent::Close(peer, reason) => println!("{peer} is gone: {reason:?}"),
                PoolEvent::DataChannel(peer, channel) => {
                    channel.send(&Message::Text("hello".to_owned())).await;
                    smol::spawn(async move {
                        while let Some(Message::Text(text)) = channel.receive().await {
                            println!("{peer} says {text}");
                        }
                    })
                    .detach();
                }
                other => println!("{other:?}"),
            }
        }
        Ok(())
    })
}
