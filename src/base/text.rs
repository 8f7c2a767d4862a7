//! Escapes characters that a person cannot see in text from peers, servers and files.
//!
//! Control characters move the cursor of a terminal; format characters reverse the direction of a line or have no
//! width. Text from a peer, a server or a file passes [`shown`] or [`Shown`] before it is printed for people, and
//! [`escape_json`] before it is printed for programs.
//!
//! Pure: no clock, chance, socket or GStreamer.

/// The longest foreign text in a field of a line for people, in characters: error texts and descriptions of a server
/// have no limit of their own.
pub const MAX_SHOWN: usize = 500;

/// Characters without a visible shape, in ascending order: all of Unicode's `Cf`, `Zl`, `Zp` and
/// `Default_Ignorable_Code_Point` (Unicode 16), the blank Braille pattern, and the noncharacters U+FFFE and U+FFFF.
const INVISIBLE: [(char, char); 27] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Returns whether a character is invisible: a control character or a character without a shape. Two names that differ
/// only in invisible characters look the same.
pub fn is_invisible(c: char) -> bool {
    c.is_control() || (!c.is_ascii() && INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c)))
}

/// Returns whether a character is escaped. Variation selectors are not: they only choose the look of the preceding
/// character, as in many emoji.
fn is_escaped(c: char) -> bool {
    is_invisible(c) && !('\u{fe00}'..='\u{fe0f}').contains(&c)
}

fn push_shown(shown: &mut String, c: char) {
    match is_escaped(c) {
        true => shown.extend(c.escape_default()),
        false => shown.push(c),
    }
}

/// Returns foreign text with its invisible characters escaped, line breaks included.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| push_shown(&mut shown, c));
    shown
}

/// Returns [`shown`] text; a text of more than [`MAX_SHOWN`] characters is cut there and ends in `…`.
pub fn brief(text: &str) -> String {
    let mut shown = shown(text);
    if let Some((at, _)) = shown.char_indices().nth(MAX_SHOWN) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// Returns a text of several lines, composed by this program, with all invisible characters but line breaks escaped.
pub fn shown_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c => push_shown(&mut shown, c),
        }
    }
    shown
}

/// Returns a JSON text with its invisible characters as `\u` escapes, which decode to the same value. In JSON these
/// characters occur only inside strings.
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match is_escaped(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}")),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Escapes a stream of bytes that arrives in pieces: keeps line breaks and tabs, and joins characters that are split
/// across two pieces.
#[derive(Debug, Default)]
pub struct Shown {
    /// The bytes of an incomplete character, at most 3.
    begun: Vec<u8>,
}

impl Shown {
    /// Returns the printable form of the next piece.
    pub fn take(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let mut shown = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        loop {
            let (text, bad) = match std::str::from_utf8(rest) {
                Ok(text) => (text, None),
                Err(error) => {
                    let text = std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default();
                    (text, Some(error.error_len()))
                }
            };
            for c in text.chars() {
                match c {
                    '\n' | '\t' => shown.push(c),
                    c => push_shown(&mut shown, c),
                }
            }
            rest = &rest[text.len()..];
            match bad {
                None => break,
                Some(None) => {
                    self.begun = rest.to_vec();
                    break;
                }
                Some(Some(length)) => {
                    shown.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[length..];
                }
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        for (text, seen) in [
            ("späti 7 Ω 日本 שלום", "späti 7 Ω 日本 שלום"),
            ("\u{1b}[2J\u{7}\u{9b}1m", "\\u{1b}[2J\\u{7}\\u{9b}1m"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
            (
                "a\u{200b}b\u{200d}c\u{feff}d\u{ad}e\u{2060}",
                "a\\u{200b}b\\u{200d}c\\u{feff}d\\u{ad}e\\u{2060}",
            ),
            ("a\u{2028}b\u{2029}c\u{85}d\r\ne", "a\\u{2028}b\\u{2029}c\\u{85}d\\r\\ne"),
            ("a\u{e0041}\u{3164}", "a\\u{e0041}\\u{3164}"),
            ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
        ] {
            assert_eq!(shown(text), seen);
        }
        assert_eq!(shown_lines("a\nb\r\u{202e}"), "a\nb\\r\\u{202e}");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(brief(&"ä".repeat(MAX_SHOWN)), "ä".repeat(MAX_SHOWN));
        assert_eq!(brief(&"ä".repeat(MAX_SHOWN + 1)), "ä".repeat(MAX_SHOWN) + "…");
        assert_eq!(brief(&"\u{202e}".repeat(1_000_000)).chars().count(), MAX_SHOWN + 1);
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a\u{202e}": "\u{9b}\u{e0041}\u{2028}\n \u{7f} plain"});
        let escaped = escape_json(&value.to_string());
        assert_eq!(escaped, r#"{"a\u202e":"\u009b\udb40\udc41\u2028\n \u007f plain"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_character_may_come_in_two_pieces() {
        let mut pieces = Shown::default();
        assert_eq!(pieces.take(b"a\t\xe2\x80"), "a\t");
        assert_eq!(pieces.take(b"\xae\nb\xff\xc3"), "\\u{202e}\nb\u{fffd}");
        assert_eq!(pieces.take(b"\xa4\x1b"), "ä\\u{1b}");
    }

    /// Generates strings in which half of the characters are of the dangerous kinds.
    fn text() -> impl Strategy<Value = String> {
        let odd = "[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}\\p{Default_Ignorable_Code_Point}\\p{Bidi_Control}]";
        let odd = prop_oneof![odd, ".", "[\\u{80}-\\u{a0}\n]"];
        prop::collection::vec(odd, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn shown_text_contains_no_invisible_character(text in text()) {
            let is_plain = |shown: &str| !shown.chars().any(is_escaped);
            prop_assert!(is_plain(&shown(&text)), "{text:?}");
            prop_assert!(is_plain(&brief(&text)));
            prop_assert!(is_plain(&shown_lines(&text).replace('\n', "")));
            prop_assert!(is_plain(&Shown::default().take(text.as_bytes()).replace(['\n', '\t'], "")));
            let json = serde_json::Value::from(text.clone()).to_string();
            let escaped = escape_json(&json);
            prop_assert!(is_plain(&escaped));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }

        /// The table matches Unicode's properties as the `regex` crate knows them.
        #[test]
        fn format_characters_of_unicode_are_invisible(
            odd in "[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}\\p{Default_Ignorable_Code_Point}\\p{Bidi_Control}]{200}",
            plain in "[\\p{L}\\p{N}\\p{P}&&[^\\p{Default_Ignorable_Code_Point}]]{200}",
        ) {
            prop_assert!(odd.chars().all(is_invisible), "{odd:?}");
            prop_assert!(!plain.chars().any(is_invisible), "{plain:?}");
        }

        #[test]
        fn pieces_show_what_the_whole_shows(text in text(), cut in any::<prop::sample::Index>()) {
            let bytes = text.as_bytes();
            let cut = cut.index(bytes.len() + 1);
            let mut pieces = Shown::default();
            let joined = pieces.take(&bytes[..cut]) + &pieces.take(&bytes[cut..]);
            prop_assert_eq!(joined, Shown::default().take(bytes));
        }
    }
}
