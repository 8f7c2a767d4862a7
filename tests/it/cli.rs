//! The program as a user types it: help, errors and exit codes.

use crate::common::{PATIENCE, REGISTRY};
use assert_cmd::Command;

fn roomtone(home: &std::path::Path) -> Command {
    let mut command = Command::cargo_bin("roomtone").unwrap();
    command
        .env("HOME", home)
        .env(REGISTRY.0, REGISTRY.1)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_STATE_HOME")
        .env_remove("DISPLAY");
    command.timeout(PATIENCE);
    command
}

/// Returns the exit code and the last line of stderr that says something: clap ends with a pointer to the help.
fn fails(args: &[&str]) -> (i32, String) {
    let home = tempfile::tempdir().unwrap();
    outcome(roomtone(home.path()).args(args))
}

fn outcome(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
    let last = stderr.lines().rev().find(is_said).unwrap_or_default().to_owned();
    (output.status.code().unwrap_or(-1), last)
}

fn help(args: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = roomtone(home.path()).args(args).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Checks the groups of options in the help of a command. The text of each option is checked with `docs/cli.md`.
fn check_groups(command: &str, expected: &[&str]) {
    let help = help(&[command]);
    let groups = help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' '));
    let groups: Vec<&str> = groups.filter(|group| !["Arguments:", "Options:"].contains(group)).collect();
    assert_eq!(groups, expected, "{help}");
    assert!(help.contains("--no-plain turns --plain off"), "{help}");
}

#[test]
fn help_of_the_server_groups_the_options_and_ends_with_examples() {
    check_groups("serve", &["Server:", "Rates:", "Back end:", "Tokens:", "STUN and TURN:", "Examples:"]);
}

#[test]
fn a_token_of_the_command_line_is_accepted_by_a_server() {
    let secret = "0123456789abcdef0123456789abcdef";
    let make = |options: &[&str]| {
        let mut command = Command::cargo_bin("roomtone").unwrap();
        command.arg("token").args(options).env("ROOMTONE_TOKEN_SECRET", secret).output().unwrap()
    };
    let output = make(&["--id", "kiosk", "--room", "attic", "--room-prefix", "team-", "--valid", "30d"]);
    let token = String::from_utf8(output.stdout).unwrap();
    let head = format!("GET /\nAuthorization: Bearer {}", token.trim());
    let grant = roomtone::server::read_head(&head, &roomtone::protocol::Secret(secret.to_owned())).unwrap();
    assert_eq!(grant.name, Some("kiosk".parse().unwrap()));
    let rooms = grant.rooms.unwrap();
    assert!(rooms.names.contains(&"attic".parse().unwrap()) && rooms.prefixes == ["team-"]);
    // From the configuration file, too.
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.toml");
    std::fs::write(&file, format!("token-secret = ['{secret}', 'an older one']")).unwrap();
    let mut command = Command::cargo_bin("roomtone").unwrap();
    command.args(["token", "--config"]).arg(&file).assert().success();
    let output = make(&["--id", ""]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.contains("its sub")), (Some(2), true), "{error}");
}

#[test]
fn help_of_room_client() {
    let output =
        Command::cargo_bin("room-client").unwrap().arg("--help").env("COLUMNS", "100").output().unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn wrong_arguments_are_usage_errors() {
    assert_eq!(fails(&["serve", "--listen", "here"]).0, 2);
    assert_eq!(fails(&["dance"]).0, 2);
    assert_eq!(fails(&["serve", "--cert", "x.pem"]).0, 2);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--plain"];
    for (option, words) in [
        (["--api-secret", "guess"], "has fewer than 32 bytes and could be guessed; give --api-secret"),
        (["--token-secret", "guess"], "has fewer than 32 bytes and could be guessed; give --token-secret"),
        (["--token-keys", "https://id.example.org/keys"], "is wanted; --token-audience names it"),
        (["--token-keys", "http://id.example.org/keys"], "an https:// address is wanted"),
        (
            ["--allow-host", "https://example.org"],
            "'https://example.org' is not a host name; --allow-host takes",
        ),
    ] {
        let (code, error) = fails(&[&serve[..], &option].concat());
        assert_eq!((code, error.contains(words)), (2, true), "{error}");
    }
    let (code, error) = fails(&["serve", "--config", "/nonexistent.toml"]);
    assert_eq!(code, 2);
    assert!(error.starts_with("roomtone: /nonexistent.toml: No such file"), "{error}");
}

/// Returns the exit code and all of stderr of a server whose port is taken.
fn serve_at_taken_port(prepare: impl FnOnce(&mut Command)) -> (i32, String) {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = roomtone(home.path());
    // A port alone stands for all IPv4 addresses.
    command.args(["serve", "--plain", "--listen", &taken.local_addr().unwrap().port().to_string()]);
    prepare(&mut command);
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn where_to_listen_may_be_a_port_and_the_error_shows_how() {
    let (code, error) = serve_at_taken_port(|_| {});
    assert_eq!((code, error.contains("cannot listen on 0.0.0.0:")), (1, true), "{error}");
    let home = tempfile::tempdir().unwrap();
    let output = roomtone(home.path()).args(["serve", "--listen", "here"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("as in 0.0.0.0:8443, 127.0.0.1:8443, [::]:8443, or a port alone"), "{error}");
}

#[test]
fn a_misspelt_variable_is_told() {
    let (_, error) = serve_at_taken_port(|command| {
        command.env("ROOMTONE_MAX_ROOM", "7").env("ROOMTONE_LOG", "warn");
    });
    let note =
        "note: the environment sets ROOMTONE_MAX_ROOM, which no option reads; is 'ROOMTONE_MAX_ROOMS' meant?";
    assert!(error.lines().any(|line| line == note) && error.lines().count() == 2, "{error}");
}

#[test]
fn an_encrypted_key_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::write(
        &key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let (code, error) = fails(&["serve", "--cert", &cert, "--key", &key]);
    let words = format!("the private key in {key} is encrypted; ");
    assert_eq!((code, error.contains(&words)), (1, true), "{error}");
}

#[test]
fn a_wrong_configuration_file_names_the_option_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.toml");
    let path = path.display().to_string();
    for (text, words) in [
        ("# mine\nplain = 'maybe'\n", "line 2: plain: true or false is wanted, not string"),
        ("max-rooms = 'many'", "line 1: max-rooms: 'many' is no value for it"),
        ("plain = true\nmax-room = 7", "line 2: there is no option 'max-room'; is 'max-rooms' meant?"),
    ] {
        std::fs::write(&path, text).unwrap();
        let (code, error) = fails(&["serve", "--config", &path]);
        assert_eq!((code, error.contains(&format!("roomtone: {path}, {words}"))), (2, true), "{error}");
    }
}

#[test]
fn a_port_that_is_taken_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = fails(&["serve", "--plain", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(error.starts_with(&format!("roomtone: cannot listen on {address}: ")), "{error}");
}

#[cfg(feature = "media")]
mod media {
    use super::*;
    use crate::common::free_address;

    #[test]
    fn help_of_the_programs() {
        insta::assert_snapshot!(help(&[]));
    }

    #[test]
    fn help_groups_the_options_and_ends_with_examples() {
        for command in ["host", "call", "answer", "join"] {
            let first: &[&str] =
                if command == "host" { &["Server:", "Rates:", "Back end:"] } else { &["Signalling:"] };
            let media = ["Sending:", "Receiving:", "Data channels:", "Connection:", "Paths:"];
            check_groups(command, &[first, &media[..], &["STUN and TURN:", "Examples:"]].concat());
        }
    }

    const QUIET: [&str; 4] = ["--headless", "--video=none", "--audio=none", "--json"];

    fn call_fails(server: &str, rest: &[&str]) -> (i32, String) {
        fails(&[&["call", "bob", "--server", server], rest].concat())
    }

    #[test]
    fn a_server_that_is_not_there() {
        let free = free_address();
        let (code, error) = call_fails(&format!("ws://{free}"), &QUIET);
        assert_eq!(code, 3);
        assert!(
            error.starts_with(&format!("roomtone: the server ws://{free} is not reachable: ")),
            "{error}"
        );
        let (code, error) = call_fails("http://example.org", &QUIET);
        assert_eq!((code, error.contains("wss://example.org:8443")), (2, true), "{error}");
    }

    #[test]
    fn media_that_cannot_be_had() {
        let server = "ws://127.0.0.1:9";
        let check = |rest: &[&str], code: i32, words: &str| {
            let (found, error) = call_fails(server, &[rest, &["--audio=none", "--headless"]].concat());
            assert_eq!(found, code, "{error}");
            assert!(error.contains(words), "{error}");
        };
        check(&["--video", "camera", "--device", "/dev/nope"], 7, "devices found here: ");
        check(
            &["--video", "nosuch"],
            2,
            "there is no source called 'nosuch'; there are: alsa, camera, camera-h264, file",
        );
        check(&["--video", "videotestsrc ! vp8encc ! x"], 7, "the GStreamer element 'vp8encc' is missing");
        check(
            &["--video", "videotestsrc patern=ball ! identity"],
            2,
            "the pipeline breaks at 'videotestsrc patern=ball'",
        );
        check(&["--video", "test", "--device", "x"], 2, "the source 'test' accepts no device");
        check(&["--video", "file"], 2, "this source needs a device, a file or an address; --device gives it");
        check(
            &["--video", "file", "--device", "/nonexistent.mkv"],
            7,
            "the file /nonexistent.mkv cannot be sent: No such file",
        );
        check(&["--video", "test", "--size", "1x1"], 2, "'1x1' is not a frame size");
        check(
            &["--video", "test", "--show", "nosuch ! fakesink"],
            7,
            "the GStreamer element 'nosuch' is missing",
        );
        check(&["--video", "test", "--record", "/proc/x"], 7, "cannot record to /proc/x");
        check(&["--video", "test", "--record", "/proc"], 7, "cannot record to /proc: ");
        check(&["--video", "test", "--record-mix", "/proc/all.mkv"], 7, "cannot record to /proc: ");
        let (code, error) = fails(&["call", "a b", "--server", server]);
        let words = "'a b' for '<PEER>': an id may hold no white space and no control characters";
        assert_eq!((code, error.contains(words)), (2, true), "{error}");
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/roomtone");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            folder.join("config.toml"),
            "server = 'ws://127.0.0.1:1'\nvideo = 'none'\naudio = 'none'\nheadless = true\n",
        )
        .unwrap();
        let error = |command: &mut Command| outcome(command).1;
        assert!(error(roomtone(home.path()).args(["call", "bob"])).contains("127.0.0.1:1 "));
        let environment = |command: &mut Command| error(command.env("ROOMTONE_SERVER", "ws://127.0.0.1:2"));
        assert!(environment(roomtone(home.path()).args(["call", "bob"])).contains("127.0.0.1:2 "));
        assert!(
            environment(roomtone(home.path()).args(["call", "bob", "--server", "ws://127.0.0.1:3"]))
                .contains("127.0.0.1:3 ")
        );
        // The command line and the environment turn an on/off option of the file off, and on.
        let plain = |text: &str, variable: Option<&str>, rest: &[&str]| {
            std::fs::write(folder.join("config.toml"), text).unwrap();
            let mut command = roomtone(home.path());
            command.envs(variable.map(|value| ("ROOMTONE_PLAIN", value)));
            command.args([
                "serve",
                "--cert",
                "/nonexistent",
                "--key",
                "/nonexistent",
                "--listen",
                "192.0.2.1:1",
            ]);
            outcome(command.args(rest)).1.contains("cannot listen on")
        };
        let (on, off) = ("plain = true", "plain = false");
        assert!(plain(on, None, &[]) && !plain(on, None, &["--no-plain"]));
        assert!(plain(off, None, &["--plain"]) && !plain("", None, &[]));
        assert!(["on", "true", "1"].iter().all(|value| plain(off, Some(value), &[])));
        assert!(["off", "false", "0"].iter().all(|value| !plain(on, Some(value), &[])));
        assert!(plain(off, Some("off"), &["--plain"]) && !plain(on, Some("on"), &["--no-plain"]));
        // An option that is off conflicts with no other.
        let mut command = roomtone(home.path());
        command.env("ROOMTONE_RECEIVE_ONLY", "off");
        let (code, text) = outcome(command.args(["call", "bob", "--send-only", "--ring", "x"]));
        assert_eq!((code, text.contains("'x' for '--ring")), (2, true), "{text}");
        // A number is a valid id, and every option may stand in the file.
        let call = "server = 'ws://127.0.0.1:1'\nid = 1234\nring = 5\nallow = [1, 'ann']\n";
        std::fs::write(folder.join("config.toml"), call.to_owned() + "video = 'none'\naudio = 'none'")
            .unwrap();
        let (code, text) = outcome(roomtone(home.path()).args(["call", "bob", "--headless"]));
        assert_eq!((code, text.contains("127.0.0.1:1 ")), (3, true), "{text}");
        let (code, text) = outcome(roomtone(home.path()).args(["answer", "--headless"]));
        assert_eq!((code, text.contains("127.0.0.1:1 ")), (3, true), "{text}");
        std::fs::write(folder.join("config.toml"), "ring = 5000").unwrap();
        let (code, text) = outcome(roomtone(home.path()).args(["call", "bob"]));
        assert_eq!(
            (code, text.contains("line 1: ring: '5000' is no value for it: 5000 is not in 1..=3600")),
            (2, true),
            "{text}"
        );
        std::fs::write(folder.join("config.toml"), "id = \"a\\u200bb\"").unwrap();
        let (code, text) = outcome(roomtone(home.path()).args(["call", "bob"]));
        let words = "id: 'a\\u{200b}b' is no value for it: an id may not hold the invisible character U+200B";
        assert_eq!((code, text.contains(words)), (2, true), "{text}");
        std::fs::write(folder.join("config.toml"), "sever = 'x'").unwrap();
        let (code, error) = outcome(roomtone(home.path()).args(["call", "bob"]));
        assert_eq!(code, 2);
        assert!(error.contains("there is no option 'sever'"), "{error}");
    }

    fn lines(args: &[&str]) -> Vec<serde_json::Value> {
        let home = tempfile::tempdir().unwrap();
        let output = roomtone(home.path()).args(args).arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_there_is_to_choose() {
        let sources = lines(&["devices"]);
        let test = sources.iter().find(|line| line["event"] == "source" && line["name"] == "test").unwrap();
        assert_eq!(test["about"], "A test picture with a moving ball and the time.");
        let codecs = lines(&["codecs"]);
        let names: Vec<&str> = codecs.iter().map(|line| line["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["VP8", "H.264", "VP9", "AV1", "H.265", "Opus", "PCMU", "PCMA"]);
        let defaults = codecs.iter().filter(|line| line["default"] == true);
        let defaults: Vec<&str> = defaults.map(|line| line["encoder"].as_str().unwrap()).collect();
        assert_eq!(defaults.last(), Some(&"opusenc"));
        assert!(codecs.iter().all(|line| line["encoder"].is_string() && line["decoder"].is_string()));
        let doctor = lines(&["doctor"]);
        let nice = doctor.iter().find(|line| line["element"] == "nicesrc").unwrap();
        assert_eq!(
            (nice["installed"].as_bool(), nice["package"].as_str()),
            (Some(true), Some("gstreamer1.0-nice"))
        );
    }

    #[test]
    fn a_users_own_pipelines_come_first() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/roomtone/pipelines/source");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("test.launch"), "# My own test.\nnosuchelement\n").unwrap();
        std::fs::write(folder.join("mine.launch"), "# Mine.\nvideotestsrc pattern=nosuch\n").unwrap();
        let output = roomtone(home.path()).arg("devices").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("My own test.") && text.contains("Mine.") && !text.contains("moving ball"),
            "{text}"
        );
        let call = |source: &str| {
            let server =
                ["call", "bob", "--server", "ws://127.0.0.1:9", "--headless", "--audio=none", "--video"];
            outcome(roomtone(home.path()).args(server).arg(source))
        };
        let (code, error) = call("test");
        assert_eq!((code, error.contains("'nosuchelement' is missing")), (7, true), "{error}");
        let (code, error) = call("mine");
        assert_eq!((code, error.contains("breaks at 'videotestsrc pattern=nosuch'")), (2, true), "{error}");
    }

    #[test]
    fn a_call_without_a_needed_plugin_names_its_package() {
        let home = tempfile::tempdir().unwrap();
        let mut command = roomtone(home.path());
        command.args(["call", "bob", "--server", "ws://127.0.0.1:9"]);
        command.env("GST_PLUGIN_SYSTEM_PATH_1_0", home.path());
        command.env("GST_REGISTRY_1_0", home.path().join("registry"));
        let (code, error) = outcome(&mut command);
        let words = "the GStreamer element 'webrtcbin' is missing; on Debian and Ubuntu: apt install gstreamer1.0-plugins-bad";
        assert_eq!((code, error), (7, format!("roomtone: {words}")));
    }

    #[test]
    fn the_doctor_names_the_package_of_what_is_missing() {
        let home = tempfile::tempdir().unwrap();
        // A registry without any plugin but GStreamer's core.
        let output = roomtone(home.path())
            .arg("doctor")
            .env("GST_PLUGIN_SYSTEM_PATH_1_0", home.path())
            .env("GST_REGISTRY_1_0", home.path().join("registry"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(7));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("MISSING webrtcbin      the call itself -> on Debian and Ubuntu: apt install gstreamer1.0-plugins-bad"), "{text}");
    }
}
