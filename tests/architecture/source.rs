//! Source files as the rules see them: without comments, contents of strings, and items that are built for tests alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A file of `src`.
pub struct Source {
    /// Path below `src`, for example `session/link.rs`.
    pub path: String,
    /// The file without comments, contents of strings and test items. Line numbers are those of the file.
    pub code: String,
    /// Lines of the file without those of test items.
    pub length: usize,
    /// Comments with the line they start on. Consecutive line comments are one comment.
    pub comments: Vec<(usize, String)>,
    /// Contents of string literals outside test items, with the line they start on.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    fn read(src: &Path, path: &Path) -> (Self, Vec<String>) {
        let text = std::fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
        let Scan { code, comments, strings } = scan(&text);
        let (code, removed, removed_lines) = without_test_items(code);
        let length = code.lines().count() - removed_lines;
        let kept: Vec<&str> = code.lines().collect();
        // A string of a test item went with its line.
        let strings = strings.into_iter().filter(|(line, _)| !kept[line - 1].trim().is_empty()).collect();
        (Self { path, code, length, comments, strings }, removed)
    }

    /// The layer: the folder below `src`, or the file's own name.
    pub fn layer(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The module's path: `["session", "link"]`; empty for `lib.rs`.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod");
        if path == "lib" { vec![] } else { path.split('/').map(str::to_owned).collect() }
    }
}

/// All files of `src`, apart from modules that are built for tests alone.
pub fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<Source> {
    let src = root().join("src");
    let mut found = vec![];
    let mut tests = BTreeSet::new();
    for path in files(&src) {
        let (source, removed) = Source::read(&src, &path);
        for name in removed {
            tests.insert([source.module(), vec![name]].concat());
        }
        found.push(source);
    }
    found.retain(|source| {
        let module = source.module();
        !(1..=module.len()).any(|n| tests.contains(&module[..n]))
    });
    found
}

/// The folder of `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The parts of a file: code with comments and contents of strings blanked, and those by themselves.
pub struct Scan {
    pub code: String,
    pub comments: Vec<(usize, String)>,
    pub strings: Vec<(usize, String)>,
}

/// Separates code, comments and strings.
pub fn scan(text: &str) -> Scan {
    let mut scan = Scan { code: String::with_capacity(text.len()), comments: vec![], strings: vec![] };
    let mut rest = text;
    let mut line = 1;
    let mut last_comment_line = 0;
    while !rest.is_empty() {
        let before = scan.code.as_bytes().last().copied();
        let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let length = if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            let words = rest[..length].trim_start_matches(['/', '!']).trim();
            let own_line = scan.code.rsplit('\n').next().unwrap_or_default().trim().is_empty();
            match scan.comments.last_mut() {
                Some((_, text)) if own_line && last_comment_line + 1 == line && !words.is_empty() => {
                    *text += &format!(" {words}");
                }
                _ => scan.comments.push((line, words.to_owned())),
            }
            last_comment_line = if words.is_empty() { 0 } else { line };
            blank(&mut scan.code, &rest[..length]);
            length
        } else if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
            scan.comments.push((line, rest[..length].trim_matches(['/', '*', ' ', '\n']).to_owned()));
            blank(&mut scan.code, &rest[..length]);
            length
        } else if let Some((open, close, escapes)) = string(rest, in_word) {
            let inside = &rest[open..];
            let content = end_of_string(inside, &close, escapes);
            scan.strings.push((line, inside[..content].to_owned()));
            scan.code.push_str(&rest[..open]);
            blank(&mut scan.code, &inside[..content]);
            scan.code.push_str(&close);
            open + content + close.len()
        } else if let Some(length) = character(rest) {
            scan.code.push('\'');
            blank(&mut scan.code, &rest[1..length - 1]);
            scan.code.push('\'');
            length
        } else {
            let length = rest.chars().next().unwrap().len_utf8();
            scan.code.push_str(&rest[..length]);
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length.min(rest.len())..];
    }
    scan
}

fn blank(code: &mut String, text: &str) {
    code.extend(text.chars().map(|c| if c == '\n' { c } else { ' ' }));
}

/// Where a string literal begins here: the length of its prefix, its end, and whether it has escapes.
fn string(rest: &str, in_word: bool) -> Option<(usize, String, bool)> {
    if rest.starts_with('"') {
        return Some((1, "\"".into(), true));
    }
    if in_word {
        return None;
    }
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    let hashes = rest[prefix..].chars().take_while(|c| *c == '#').count();
    let raw = rest[..prefix].ends_with('r');
    let is_string =
        prefix > 0 && prefix < 3 && rest[prefix + hashes..].starts_with('"') && (raw || hashes == 0);
    is_string.then(|| (prefix + hashes + 1, format!("\"{}", "#".repeat(hashes)), !raw))
}

fn end_of_string(inside: &str, close: &str, escapes: bool) -> usize {
    if !escapes {
        return inside.find(close).unwrap_or(inside.len());
    }
    let mut characters = inside.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => return at,
            _ => {}
        }
    }
    inside.len()
}

/// The length of a character literal that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escaped) = inside.strip_prefix('\\') {
        let first = escaped.chars().next()?.len_utf8();
        return Some(2 + first + escaped[first..].find('\'')? + 1);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(first + 2)
}

/// Blanks every item under `#[cfg(test)]`; returns the code, the modules of other files that went, and the
/// number of lines that are blank now.
fn without_test_items(mut code: String) -> (String, Vec<String>, usize) {
    let (mut modules, mut lines) = (vec![], 0);
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(") {
        let start = from + at;
        let condition = &code[start..start + code[start..].find(']').unwrap()];
        from = start + condition.len();
        let is_test = condition == "#[cfg(test)" || condition.starts_with("#[cfg(all(test");
        if !is_test {
            continue;
        }
        let end = from + 1 + end_of_item(&code[from + 1..]);
        let item = code[from + 1..end].trim().to_owned();
        if let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            modules.push(name.trim().to_owned());
        }
        let mut blanked = String::new();
        blank(&mut blanked, &code[start..end]);
        lines += blanked.matches('\n').count() + 1;
        from = start + blanked.len();
        code.replace_range(start..end, &blanked);
    }
    (code, modules, lines)
}

/// The length of the item at the start of this code: to its `;`, or to the end of its braces.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                // `use a::{b, c};` goes on to its semicolon.
                if depth == 0 && !code[at + 1..].trim_start().starts_with(';') {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The functions of this code: name, line, and length in lines from `fn` to the closing brace.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = vec![];
    for (at, _) in code.match_indices("fn ") {
        let in_word = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if in_word || name.is_empty() {
            continue;
        }
        let body = &code[at..at + end_of_item(&code[at..])];
        found.push((name, code[..at].matches('\n').count() + 1, body.matches('\n').count() + 1));
    }
    found
}

#[test]
fn a_scan_knows_strings_comments_and_test_items() {
    let text = r##"
        use a::{b, c};
        /// Says: "no string // here".
        fn f<'a>(x: &'a str) -> char { let _ = ("// no comment {", r#"a "quoted" {"#, b'{', '\''); '{' }
        #[cfg(test)]
        use d::{self, e};
        #[cfg(test)]
        impl S { fn g() { "}" } } // Kept.
        fn h() {}
        #[cfg(test)]
        mod tests;
        fn i() {}
    "##;
    let scan = scan(text);
    let comments: Vec<&str> = scan.comments.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(comments, ["Says: \"no string // here\".", "Kept."]);
    let strings: Vec<&str> = scan.strings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(strings, ["// no comment {", "a \"quoted\" {", "}"]);
    let (code, modules, _) = without_test_items(scan.code);
    assert_eq!(modules, ["tests"]);
    let names: Vec<String> = functions(&code).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["f", "h", "i"]);
    assert!(!code.contains("use d") && code.contains("use a"), "{code}");
}
