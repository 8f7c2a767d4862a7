//! Data channels joined to files, ports, stdin and stdout.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Holds, Program, REGISTRY, SMALL, Stage, free_port, needs, settled, wait_for};
use serde_json::json;

/// A call of nothing but channels.
const NO_MEDIA: [&str; 5] = ["--video", "none", "--audio", "none", "--send-only"];

fn answer(stage: &Stage, channels: &[&str], media: &[&str]) -> Program {
    stage.answer("bob").media(media).with(&["--once"]).with(channels).ready()
}

fn call(stage: &Stage, channels: &[&str], media: &[&str]) -> Program {
    stage.call("bob").id("ann").media(media).with(channels).start()
}

/// Bytes that repeat nowhere.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_file_comes_whole_and_the_call_is_over_with_it() {
    let stage = Stage::new();
    let sent = noise(8_000_000);
    std::fs::write(stage.path("photos"), &sent).unwrap();
    let save = format!("file:save={}", stage.path("from-{peer}.bin"));
    // Something is there already, and stays.
    std::fs::write(stage.path("from-ann.bin"), b"before").unwrap();
    let mut bob = answer(&stage, &["--channel", &save], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("file:send={}", stage.path("photos"))], &NO_MEDIA);
    let done = ann.expect("transfer", &[("peer", "bob"), ("channel", "file")]);
    assert_eq!(done["finished"], false);
    ann.expect("ended", &[("reason", "normally")]);
    let last = ann.all("transfer", &[]).pop().unwrap();
    assert_eq!(
        (&last["sent"], &last["total"], &last["finished"]),
        (&json!(sent.len()), &json!(sent.len()), &json!(true))
    );
    bob.expect("ended", &[("reason", "normally")]);
    let last = bob.all("transfer", &[]).pop().unwrap();
    assert_eq!(last["path"], stage.path("from-ann-2.bin"));
    assert!(std::fs::read(stage.path("from-ann-2.bin")).unwrap() == sent, "the bytes are others");
    assert_eq!(std::fs::read(stage.path("from-ann.bin")).unwrap(), b"before");
    assert_eq!((ann.end().0, bob.end().0), (0, 0));
}

#[test]
fn two_senders_at_once_give_two_whole_files_and_no_link_is_followed() {
    let stage = Stage::new();
    let [one, two] = [noise(6_000_000), noise(7_000_000)];
    std::fs::write(stage.path("one"), &one).unwrap();
    std::fs::write(stage.path("two"), &two).unwrap();
    // An attacker who can write into the folder puts symbolic links at the names of the files and of their parts.
    for name in ["all.bin", "all-2.bin.part"] {
        std::os::unix::fs::symlink(stage.path("secret"), stage.path(name)).unwrap();
    }
    std::fs::write(stage.path("secret"), b"before").unwrap();
    let join =
        |id: &str, channel: &str| stage.join(id).media(&NO_MEDIA).with(&["--channel", channel]).start();
    let mut ann = join("ann", &format!("file:save={}", stage.path("all.bin")));
    ann.expect("room", &[]);
    let _senders = [
        join("bob", &format!("file:send={}", stage.path("one"))),
        join("cat", &format!("file:send={}", stage.path("two"))),
    ];
    let saved = ["bob", "cat"].map(|peer| {
        wait_for(&format!("the file of {peer}"), || {
            let done = ann.all("transfer", &[("peer", peer)]).pop()?;
            done["path"].as_str().map(|path| std::fs::read(path).unwrap())
        })
    });
    assert!(saved[0] == one && saved[1] == two, "{} and {} bytes", saved[0].len(), saved[1].len());
    assert_eq!(std::fs::read(stage.path("secret")).unwrap(), b"before");
    let parts = std::fs::read_dir(stage.home()).unwrap().map(|entry| entry.unwrap().file_name());
    let parts: Vec<_> = parts.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert_eq!(parts, ["all-2.bin.part"], "the link alone");
}

#[test]
fn who_is_called_opens_the_channel_that_the_caller_does_not_know_of() {
    let stage = Stage::new();
    let sent = noise(300_000);
    std::fs::write(stage.path("log"), &sent).unwrap();
    let mut bob = answer(&stage, &["--channel", &format!("log:send={}", stage.path("log"))], &SMALL);
    let save = format!("log:save={}", stage.path("saved"));
    let mut ann = call(&stage, &["--channel", &save], &SMALL);
    ann.expect("transfer", &[("channel", "log")]);
    wait_for("the file", || std::fs::read(stage.path("saved")).ok().filter(|saved| *saved == sent));
    // There is media: the call goes on, and its chat is another channel.
    ann.say(&json!({"command": "say", "text": "got it"}));
    bob.expect("message", &[("channel", "chat"), ("text", "got it")]);
    drop((ann, bob));
    // This time the caller has no such option: the one who is called opens it all the same.
    let stage = Stage::new();
    std::fs::write(stage.path("log"), &sent).unwrap();
    let mut bob = answer(&stage, &["--channel", &format!("log:send={}", stage.path("log"))], &NO_MEDIA);
    let mut cat = call(&stage, &[], &SMALL);
    cat.expect("channel", &[("channel", "log")]);
    bob.expect("transfer", &[("channel", "log")]);
}

#[test]
fn two_ports_are_joined_both_ways_and_end_together() {
    let stage = Stage::new();
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tunnel:tcp={}", echo.local_addr().unwrap().port());
    let port = free_port();
    let _bob = answer(&stage, &["--channel", &tcp], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("tunnel:listen={port}")], &NO_MEDIA);
    ann.expect("transfer", &[("channel", "tunnel")]);
    let echoes = std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        let mut chunk = vec![0; 65536];
        let mut count = 0;
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            stream.write_all(&chunk[..length]).unwrap();
            count += length;
        }
        count
    });
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let sent = noise(6_000_000);
    let (mut writer, all) = (stream.try_clone().unwrap(), sent.clone());
    let writes = std::thread::spawn(move || writer.write_all(&all).unwrap());
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == sent, "the bytes are others");
    writes.join().unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    assert_eq!(echoes.join().unwrap(), sent.len());
    ann.expect("ended", &[("reason", "normally")]);
}

#[test]
fn what_is_piped_in_here_comes_out_there_and_the_other_way_round() {
    let stage = Stage::new();
    let program = |options: &[&str], peer: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomtone"));
        command.args(options).args(NO_MEDIA).args(["--server", &stage.url]).args(peer);
        command
            .env("HOME", stage.home())
            .env(REGISTRY.0, REGISTRY.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut bob = program(&["answer", "--once", "--json"], &["--id", "bob", "--channel", "pipe"]);
    let mut told = std::io::BufReader::new(bob.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("registered") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut told, &mut line).unwrap(), 0);
    }
    let mut ann = program(&["call", "bob", "--id", "ann"], &["--channel", "pipe"]);
    let sent = noise(2_000_000);
    let (mut to_ann, all) = (ann.stdin.take().unwrap(), sent.clone());
    bob.stdin.as_mut().unwrap().write_all(b"an answer\n").unwrap();
    let mut answer = [0; 10];
    ann.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"an answer\n");
    let writes = std::thread::spawn(move || to_ann.write_all(&all).unwrap());
    let mut came = Vec::new();
    bob.stdout.take().unwrap().read_to_end(&mut came).unwrap();
    writes.join().unwrap();
    assert!(came == sent, "{} bytes came of {}", came.len(), sent.len());
    assert!(ann.wait().unwrap().success() && bob.wait().unwrap().success());
}

#[test]
fn a_file_of_a_sender_that_dies_is_not_taken_for_whole() {
    let stage = Stage::new();
    std::fs::write(stage.path("endless"), noise(60_000_000)).unwrap();
    let save = format!("file:save={}", stage.path("saved"));
    let bob =
        answer(&stage, &["--channel", &save, "--give-up-after", "1", "--reconnect-after", "1"], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("file:send={}", stage.path("endless"))], &NO_MEDIA);
    ann.expect("transfer", &[]);
    let part = stage.path("saved.part");
    wait_for("the first bytes", || std::fs::metadata(&part).ok().filter(|part| part.len() > 100_000));
    ann.signal("KILL");
    let (_, warnings) = bob.end_with_warnings();
    assert!(warnings.contains("saved.part is not complete"), "{warnings}");
    assert!(!Path::new(&stage.path("saved")).exists());
    // Nor is that of one who ends in the middle of it, in order.
    let bob = answer(&stage, &["--channel", &save], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("file:send={}", stage.path("endless"))], &NO_MEDIA);
    ann.expect("transfer", &[]);
    let part = stage.path("saved-2.part");
    wait_for("the first bytes", || std::fs::metadata(&part).ok().filter(|part| part.len() > 100_000));
    ann.interrupt();
    let (_, warnings) = bob.end_with_warnings();
    assert!(warnings.contains("saved-2.part is not complete"), "{warnings}");
    assert!(!Path::new(&stage.path("saved")).exists());
}

#[test]
fn a_file_begins_again_over_a_new_path() {
    let stage = Stage::new();
    let sent = noise(40_000_000);
    std::fs::write(stage.path("large"), &sent).unwrap();
    let save = format!("file:save={}", stage.path("saved"));
    let mut bob = answer(&stage, &["--channel", &save], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("file:send={}", stage.path("large"))], &NO_MEDIA);
    ann.expect("transfer", &[]);
    let part = stage.path("saved.part");
    wait_for("the first bytes", || std::fs::metadata(&part).ok().filter(|part| part.len() > 100_000));
    ann.say(&json!({"command": "reconnect"}));
    bob.expect("peer", &[("state", "reconnecting")]);
    bob.expect("ended", &[("reason", "normally")]);
    assert!(std::fs::read(stage.path("saved")).unwrap() == sent, "the bytes are others");
    let warnings = bob.all("warning", &[]);
    assert!(
        warnings.iter().any(|one| one["text"].as_str().unwrap().contains("is not complete")),
        "{warnings:?}"
    );
}

#[test]
fn a_reader_that_stands_still_makes_the_sender_wait() {
    let stage = Stage::new();
    // Nothing reads the port: its buffers fill first, then the channel's.
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(stage.path("endless"), noise(400_000_000)).unwrap();
    let tcp = format!("file:tcp={}", sink.local_addr().unwrap().port());
    let bob = answer(&stage, &["--channel", &tcp], &NO_MEDIA);
    let mut ann = call(&stage, &["--channel", &format!("file:send={}", stage.path("endless"))], &NO_MEDIA);
    let (_stream, _) = sink.accept().unwrap();
    bob.signal("STOP");
    let sent = settled("pause of the sender", Duration::from_secs(3), || {
        ann.all("transfer", &[]).pop().map_or(0, |event| event["sent"].as_u64().unwrap())
    });
    let resident = Holds::of(ann.pid()).resident;
    assert!(sent < 200_000_000 && resident < 300_000, "{sent} bytes sent, {resident} KiB held");
    bob.signal("CONT");
}

#[test]
fn a_page_talks_to_a_port_over_a_channel_of_its_own() {
    needs!(Browser);
    let stage = Stage::new();
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("robot:lines:tcp={}", echo.local_addr().unwrap().port());
    let _host = answer(&stage, &["--channel", &tcp], &SMALL);
    let browser = stage.empty_page();
    browser.run(ROBOT_PAGE);
    let (stream, _) = echo.accept().unwrap();
    let mut lines = std::io::BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert_eq!(line, "go left \u{1F916}\n");
    (&stream).write_all("gone left\nwaiting".as_bytes()).unwrap();
    browser.wait("robot.heard.join() === 'gone left'");
    stream.shutdown(Shutdown::Both).unwrap();
    browser.wait("robot.heard.join() === 'gone left,waiting' && robot.closed");
}

/// A page that opens a channel called `robot`, and says one thing over it.
const ROBOT_PAGE: &str = "
    const pc = new RTCPeerConnection();
    const ws = new WebSocket(location.href.replace('http', 'ws').replace('health', ''));
    globalThis.robot = { heard: [], closed: false, pc, ws };
    pc.onicecandidate = ({ candidate }) => candidate && ws.send(JSON.stringify({ ice: candidate }));
    const channel = pc.createDataChannel('robot');
    channel.onmessage = ({ data }) => robot.heard.push(data);
    channel.onopen = () => channel.send('go left \\u{1F916}');
    channel.onclose = () => { robot.closed = true; };
    ws.onopen = () => ws.send('HELLO 4321');
    ws.onmessage = async ({ data }) => {
        if (data === 'HELLO') return ws.send('SESSION bob');
        if (data === 'SESSION_OK') {
            await pc.setLocalDescription();
            return ws.send(JSON.stringify({ sdp: pc.localDescription }));
        }
        const { sdp, ice } = JSON.parse(data);
        if (ice) return pc.addIceCandidate(ice);
        await pc.setRemoteDescription(sdp);
        if (sdp.type === 'offer') {
            await pc.setLocalDescription();
            ws.send(JSON.stringify({ sdp: pc.localDescription }));
        }
    };";

#[test]
fn what_cannot_be_joined_is_told_before_any_call() {
    let stage = Stage::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("a:listen={}", taken.local_addr().unwrap().port());
    for (channels, code, why) in [
        (vec!["a:sorted"], 2, "'sorted' is no option of a channel"),
        (vec!["a", "b"], 2, "two data channels are joined to stdin and stdout"),
        (vec!["a", "a:tcp=1"], 2, "two data channels have the label 'a'"),
        (vec!["a:send=/nowhere/at/all"], 2, "/nowhere/at/all: No such file"),
        (vec![listen.as_str()], 2, "in use"),
    ] {
        let options: Vec<&str> = channels.iter().flat_map(|channel| ["--channel", channel]).collect();
        let (status, error) = call(&stage, &options, &NO_MEDIA).end();
        assert_eq!((status, error.contains(why)), (code, true), "{channels:?}: {status} {error}");
    }
}
