//! Rules for the language of comments and messages.

use super::source::{files, root, scan, sources};

/// Words that begin a relative clause or a reference to an earlier sentence, where a comment needs a subject.
const NO_SUBJECT: [&str; 8] = ["Who", "What", "One", "So", "Of", "Those", "Whatever", "Nobody"];

/// Comments in `src` that begin with one of these words. The number may only fall.
const BUDGET: usize = 0;

/// The same in `tests`, `examples` and `fuzz`.
const BUDGET_IN_TESTS: usize = 0;

/// Comments of these folders that begin without a subject.
fn without_subject(folders: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for path in folders.iter().flat_map(|folder| files(&root().join(folder))) {
        for (line, text) in scan(&std::fs::read_to_string(&path).unwrap()).comments {
            if NO_SUBJECT.contains(&text.split(|c: char| !c.is_alphanumeric()).next().unwrap()) {
                found.push(format!("{}:{line}: {}", path.display(), text.lines().next().unwrap()));
            }
        }
    }
    found
}

#[test]
fn comments_begin_with_their_subject() {
    for (folders, budget) in [(&["src"][..], BUDGET), (&["tests", "examples", "fuzz"], BUDGET_IN_TESTS)] {
        let found = without_subject(folders);
        assert!(found.len() <= budget, "{} of {budget}:\n{}", found.len(), found.join("\n"));
    }
}

#[test]
fn only_the_command_line_names_its_options() {
    let is_option = |text: &str| {
        text.match_indices("--").any(|(at, _)| text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let mut wrong = vec![];
    for source in sources() {
        if ["cli", "bin"].contains(&source.layer()) {
            continue;
        }
        let named = source.strings.iter().filter(|(_, text)| is_option(text));
        wrong.extend(named.map(|(line, text)| format!("{}:{line}: {text:?}", source.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
