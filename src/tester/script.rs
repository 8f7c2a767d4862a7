//! Scripts of several peers: the messages that each sends and must receive. `docs/scripts.md` describes the language.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::BTreeMap;
use std::time::Duration;

/// Most lines of a script.
pub const MAX_LINES: usize = 10_000;
/// Largest N of `{fill:N}`, in bytes.
const MAX_FILL: usize = 4 << 20;
/// Default timeout of a step.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Action of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `!connect`: opens a connection; with `+` it requests roomtone's additions.
    Connect(bool),
    /// `!close`: closes the connection with a close frame.
    Close,
    /// `!drop`: drops the connection without a close frame.
    Drop,
    /// `!quiet TIME`: must receive nothing for that time.
    Quiet(Duration),
    /// `!closed CODE [WORDS]`: the server must close the connection with that code and reason.
    Closed(Pattern, Pattern),
    /// `!binary N`: sends N bytes as a binary frame.
    Binary(usize),
}

/// A step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `peer > text`.
    Send(String, Pattern),
    /// `peer < pattern`.
    Expect(String, Pattern),
    /// `peer !action`.
    Act(String, Action),
    /// `{ … }`: all of these expectations, in any order.
    Unordered(Vec<Line>),
}

/// A step with its line and its timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of the line, from 1.
    pub number: usize,
    /// Longest time that the step may take.
    pub timeout: Duration,
    /// The step.
    pub step: Step,
}

/// A whole script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its steps in order.
    pub lines: Vec<Line>,
}

/// Syntax error of a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SyntaxError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The error in words.
    pub reason: String,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `*`.
    Any,
    /// `{name}`.
    Name(String),
}

/// Text with `*` and `{names}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

/// Values of names.
pub type Names = BTreeMap<String, String>;

impl Pattern {
    fn parse(text: &str, with_any: bool) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => literal.push(match rest.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('s') => ' ',
                    Some('0') => '\0',
                    Some(c @ ('\\' | '{' | '}' | '*')) => c,
                    other => return Err(format!("'\\{}' means nothing", other.unwrap_or(' '))),
                }),
                '*' if with_any => {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                    parts.push(Part::Any);
                }
                // JSON contains braces too: only {word} is a name.
                '{' => match name(rest.as_str()) {
                    Some(word) => {
                        rest = rest.as_str()[word.len() + 1..].chars();
                        match word.strip_prefix("fill:").map(str::parse::<usize>) {
                            Some(Ok(n)) if n <= MAX_FILL => literal.extend(std::iter::repeat_n('x', n)),
                            Some(_) => {
                                return Err(format!("'{{{word}}}' is no number of bytes up to {MAX_FILL}"));
                            }
                            None => {
                                parts.push(Part::Text(std::mem::take(&mut literal)));
                                parts.push(Part::Name(word.to_owned()));
                            }
                        }
                    }
                    None => literal.push('{'),
                },
                c => literal.push(c),
            }
        }
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// Returns the text with the values of the names; fails if a name has no value yet.
    pub fn fill(&self, names: &Names) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Any => text.push('*'),
                Part::Name(name) => {
                    text.push_str(names.get(name).ok_or_else(|| format!("{{{name}}} has no value yet"))?);
                }
            }
        }
        Ok(text)
    }

    /// Returns whether the text matches, and gives names without a value the part that they match.
    pub fn matches(&self, text: &str, names: &mut Names) -> bool {
        let mut found = names.clone();
        let fits = fits(&self.0, text, &mut found);
        if fits {
            *names = found;
        }
        fits
    }

    /// Returns the pattern in a form for people.
    pub fn shown(&self, names: &Names) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Any => "*".to_owned(),
            Part::Name(name) => names.get(name).cloned().unwrap_or_else(|| format!("{{{name}}}")),
        };
        self.0.iter().map(part).collect()
    }
}

/// Returns the word of `word}…`; `None` if the text does not begin so.
fn name(text: &str) -> Option<&str> {
    let (word, _) = text.split_once('}')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    (!word.is_empty() && word.chars().all(is_name)).then_some(word)
}

fn fits(parts: &[Part], text: &str, names: &mut Names) -> bool {
    match parts {
        [] => text.is_empty(),
        [Part::Text(literal), rest @ ..] => {
            text.strip_prefix(literal.as_str()).is_some_and(|text| fits(rest, text, names))
        }
        [Part::Any] => true,
        [Part::Any, rest @ ..] => ends(text).any(|at| fits(rest, &text[at..], names)),
        [Part::Name(name), rest @ ..] => match names.get(name).cloned() {
            Some(value) => text.strip_prefix(value.as_str()).is_some_and(|text| fits(rest, text, names)),
            // A name matches a word.
            None => ends(text).skip(1).take_while(|at| !text[..*at].contains(' ')).any(|at| {
                let mut tried = names.clone();
                tried.insert(name.clone(), text[..at].to_owned());
                let fits = fits(rest, &text[at..], &mut tried);
                if fits {
                    *names = tried;
                }
                fits
            }),
        },
    }
}

fn ends(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.char_indices().map(|(at, _)| at).chain([text.len()])
}

/// Parses a time: `2s`, `500ms`.
fn time(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s').and_then(|number| number.parse().ok()).map(Duration::from_secs)
}

impl Script {
    /// Parses a script.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut lines = Vec::new();
        let mut group: Option<(usize, Vec<Line>)> = None;
        let mut timeout = DEFAULT_TIMEOUT;
        for (i, line) in text.lines().enumerate() {
            let number = i + 1;
            let wrong = |reason: String| SyntaxError { line: number, reason };
            if number > MAX_LINES {
                return Err(wrong(format!("a script may have {MAX_LINES} lines")));
            }
            let trimmed = line.trim();
            match (trimmed, &mut group) {
                ("", _) => {}
                (comment, _) if comment.starts_with('#') => {}
                ("{", None) => group = Some((number, Vec::new())),
                ("{", Some(_)) => return Err(wrong("a group within a group".to_owned())),
                ("}", Some((from, steps))) => {
                    let step = Step::Unordered(std::mem::take(steps));
                    lines.push(Line { number: *from, timeout, step });
                    group = None;
                }
                ("}", None) => return Err(wrong("'}' without '{'".to_owned())),
                (setting, None) if setting.starts_with("timeout ") => {
                    let given = time(setting["timeout ".len()..].trim());
                    timeout =
                        given.ok_or_else(|| wrong("timeout needs a time such as 2s or 500ms".to_owned()))?;
                }
                (_, group) => {
                    let line = Line::parse(line.trim_start(), number, timeout).map_err(wrong)?;
                    match (group, &line.step) {
                        (None, _) => lines.push(line),
                        (Some((_, steps)), Step::Expect(..)) => steps.push(line),
                        (Some(_), _) => {
                            return Err(wrong("only 'peer < text' may stand in a group".to_owned()));
                        }
                    }
                }
            }
        }
        match group {
            Some((line, _)) => Err(SyntaxError { line, reason: "'{' without '}'".to_owned() }),
            None => Ok(Self { lines }),
        }
    }

    /// Returns the names of the peers.
    pub fn peers(&self) -> Vec<&str> {
        let mut peers: Vec<&str> = self.lines.iter().filter_map(|line| line.step.peer()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

impl Step {
    fn peer(&self) -> Option<&str> {
        match self {
            Self::Send(peer, _) | Self::Expect(peer, _) | Self::Act(peer, _) => Some(peer),
            Self::Unordered(_) => None,
        }
    }
}

impl Line {
    fn parse(text: &str, number: usize, timeout: Duration) -> Result<Self, String> {
        const FORM: &str = "a step is 'peer > text', 'peer < text' or 'peer !action'";
        let (peer, rest) = text.split_once(' ').ok_or(FORM)?;
        if !peer.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(FORM.to_owned());
        }
        let rest = rest.trim_start();
        let (sign, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let rest = rest.trim_end();
        let mut chars = sign.chars();
        let (step, timeout) = match (chars.next(), chars.as_str()) {
            (Some('>'), "") => (Step::Send(peer.to_owned(), Pattern::parse(rest, false)?), timeout),
            (Some('<'), limit) => {
                let given = if limit.is_empty() { Some(timeout) } else { time(limit) };
                let timeout = given.ok_or_else(|| format!("'{limit}' is no time such as 2s or 500ms"))?;
                (Step::Expect(peer.to_owned(), Pattern::parse(rest, true)?), timeout)
            }
            (Some('!'), action) => (Step::Act(peer.to_owned(), Action::parse(action, rest)?), timeout),
            _ => return Err(FORM.to_owned()),
        };
        Ok(Self { number, timeout, step })
    }
}

impl Action {
    fn parse(name: &str, rest: &str) -> Result<Self, String> {
        Ok(match (name, rest) {
            ("connect", "") => Self::Connect(false),
            ("connect", "+") => Self::Connect(true),
            ("close", "") => Self::Close,
            ("drop", "") => Self::Drop,
            ("quiet", rest) => Self::Quiet(time(rest).ok_or("quiet needs a time such as 500ms")?),
            ("closed", rest) => {
                let (code, words) = rest.split_once(' ').unwrap_or((rest, ""));
                let code = if code.is_empty() { "*" } else { code };
                Self::Closed(Pattern::parse(code, true)?, Pattern::parse(words, true)?)
            }
            ("binary", rest) => {
                let n = rest.parse().ok().filter(|n| *n <= MAX_FILL);
                Self::Binary(n.ok_or("binary needs a number of bytes")?)
            }
            (name, _) => {
                return Err(format!(
                    "'!{name}' is no action: connect, connect +, close, drop, quiet TIME, closed CODE WORDS, binary N"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        Script::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_script_is_read() {
        let script = Script::parse(
            "# a comment\ntimeout 2s\n\nann !connect\nann > HELLO ann-{run}\nann <500ms HELLO\n\
             {\n  ann < ROOM_PEER_LEFT {who}\n  bob < *\n}\nbob !closed 1002 invalid*\nann !quiet 1s",
        )
        .unwrap();
        assert_eq!(script.lines.len(), 6);
        assert_eq!(script.peers(), ["ann", "bob"]);
        assert_eq!(script.lines[0].timeout, Duration::from_secs(2));
        assert_eq!(script.lines[2].timeout, Duration::from_millis(500));
        assert!(matches!(&script.lines[3].step, Step::Unordered(steps) if steps.len() == 2));
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(error("ann"), "line 1: a step is 'peer > text', 'peer < text' or 'peer !action'");
        assert!(error("\nann !dance").starts_with("line 2: '!dance' is no action: connect"));
        assert_eq!(error("{\nann > x\n}"), "line 2: only 'peer < text' may stand in a group");
        assert_eq!(error("{\nann < x"), "line 1: '{' without '}'");
        assert_eq!(error("}"), "line 1: '}' without '{'");
        assert_eq!(error("ann <soon x"), "line 1: 'soon' is no time such as 2s or 500ms");
        assert_eq!(error("ann > \\q"), "line 1: '\\q' means nothing");
        assert_eq!(
            error("ann > {fill:99999999}"),
            "line 1: '{fill:99999999}' is no number of bytes up to 4194304"
        );
        assert_eq!(error("timeout soon"), "line 1: timeout needs a time such as 2s or 500ms");
    }

    #[test]
    fn patterns_match_and_capture() {
        let mut names = Names::from([("run".into(), "7".into())]);
        let mut matches =
            |pattern: &str, text: &str| Pattern::parse(pattern, true).unwrap().matches(text, &mut names);
        assert!(matches("ROOM_OK *", "ROOM_OK ann bob"));
        assert!(!matches("ROOM_OK", "ROOM_OK "));
        assert!(matches("ROOM_OK\\s", "ROOM_OK "));
        assert!(matches("JOINED {who}", "JOINED bob"));
        assert!(!matches("LEFT {who}", "LEFT cat"), "it is bob from now on");
        assert!(matches("x-{run} {\"sdp\": *}", "x-7 {\"sdp\": 1}"));
        assert!(matches("*a*b*", "xxaxxbxx"));
        assert_eq!(names["who"], "bob");
        let filled = Pattern::parse("HELLO {who} {fill:3} \\{x}", false).unwrap().fill(&names);
        assert_eq!(filled.as_deref(), Ok("HELLO bob xxx {x}"));
        assert!(Pattern::parse("{nobody}", false).unwrap().fill(&names).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(([a-z]{1,3} [<>!]?[a-z0-9]{0,4} ?[a-z{}*\\\\:0-9]{0,8}|\\PC{0,12}|\\{|\\})\n){0,20}") {
            let _ = Script::parse(&text);
        }

        #[test]
        fn text_matches_itself(text in "[a-zA-Z0-9 _\"':,.-]{0,40}") {
            prop_assert!(Pattern::parse(&text, true).unwrap().matches(&text, &mut Names::new()));
        }
    }
}
