//! Keys of a terminal: a key for each frequent command, and a line for all others.
//!
//! Pure: no clock, chance, socket or GStreamer.

/// Help, shown when reading begins and at an unknown key.
pub(super) const HELP: &str =
    "keys: m mute, c camera, t talk, p peers, s stats, q quit, : for any command, ? for all of them";

/// Effect of a byte.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// Text to write to the terminal.
    pub(super) echo: String,
    /// Complete command, if the byte ends one.
    pub(super) line: Option<String>,
}

/// Progress within an escape sequence (an arrow, a function key). The keys of this program do not begin one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Sequence,
}

/// Line that is being typed, if any.
#[derive(Debug)]
pub(super) struct Keys {
    line: Option<String>,
    /// First bytes of a character of several bytes.
    pending: Vec<u8>,
    escape: Escape,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { line: None, pending: vec![], escape: Escape::None }
    }

    /// Handles the next byte of the terminal.
    pub(super) fn take(&mut self, byte: u8) -> Typed {
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Sequence;
                return Typed::default();
            }
            // ECMA-48, 5.4: parameters, then one final byte.
            (Escape::Sequence, 0x20..=0x3f) => return Typed::default(),
            (Escape::Sequence, _) => {
                self.escape = Escape::None;
                return Typed::default();
            }
            (Escape::Begun | Escape::None, 0x1b) => {
                self.escape = Escape::Begun;
                return Typed::default();
            }
            (Escape::Begun, _) => self.escape = Escape::None,
            (Escape::None, _) => {}
        }
        self.pending.push(byte);
        let key = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.chars().next(),
            Err(error) if error.error_len().is_none() => return Typed::default(),
            Err(_) => None,
        };
        self.pending.clear();
        key.map(|key| self.key(key)).unwrap_or_default()
    }

    fn key(&mut self, key: char) -> Typed {
        let echo = |echo: &str| Typed { echo: echo.to_owned(), line: None };
        let Some(line) = &mut self.line else {
            return match key {
                'm' | 'c' | 'p' | 's' | 'q' | 'y' | 'n' | '?' => {
                    Typed { echo: String::new(), line: Some(key.to_string()) }
                }
                ':' | '/' => self.begin("", ":"),
                't' => self.begin("say ", "say "),
                '\n' | '\r' => Typed::default(),
                _ => echo(&format!("{HELP}\n")),
            };
        };
        match key {
            '\n' | '\r' => Typed { echo: "\n".to_owned(), line: self.line.take() },
            '\u{7f}' | '\u{8}' => match line.pop() {
                Some(_) => echo("\u{8} \u{8}"),
                None => {
                    self.line = None;
                    echo("\r\u{1b}[K")
                }
            },
            // Ctrl-U discards the line.
            '\u{15}' => {
                self.line = None;
                echo("\r\u{1b}[K")
            }
            key if key.is_control() => Typed::default(),
            key => {
                line.push(key);
                echo(key.encode_utf8(&mut [0; 4]))
            }
        }
    }

    fn begin(&mut self, line: &str, echo: &str) -> Typed {
        self.line = Some(line.to_owned());
        Typed { echo: echo.to_owned(), line: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn type_in(bytes: &[u8]) -> (Vec<String>, String) {
        let mut keys = Keys::new();
        let (mut lines, mut echo) = (vec![], String::new());
        for byte in bytes {
            let typed = keys.take(*byte);
            lines.extend(typed.line);
            echo += &typed.echo;
        }
        (lines, echo)
    }

    #[test]
    fn a_key_acts_at_once_and_a_colon_begins_a_line() {
        assert_eq!(type_in(b"mq"), (vec!["m".into(), "q".into()], String::new()));
        assert_eq!(type_in(b":tell bob hi\nm").0, ["tell bob hi", "m"]);
        assert_eq!(type_in("tgrüße\r".as_bytes()), (vec!["say grüße".into()], "say grüße\n".into()));
        assert_eq!(type_in(b"\n\r"), (vec![], String::new()));
        assert_eq!(type_in(b"x"), (vec![], format!("{HELP}\n")));
    }

    #[test]
    fn a_line_can_be_edited_and_cancelled() {
        assert_eq!(type_in(b":mutte\x7f\x7fe\n").0, ["mute"]);
        assert_eq!(type_in(b":mute\x15m").0, ["m"]);
        assert_eq!(type_in(b":a\x7f\x7fm").0, ["m"]);
        // Arrows and other escape sequences are ignored, inside a line and outside.
        assert_eq!(type_in(b"\x1b[A\x1b[1;5C\x1bOPm").0, ["m"]);
        assert_eq!(type_in(b":mu\x1b[Dte\n").0, ["mute"]);
    }

    proptest! {
        #[test]
        fn no_typed_line_contains_control_characters(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for line in type_in(&bytes).0 {
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
