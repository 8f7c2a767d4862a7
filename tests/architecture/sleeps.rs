//! A rule for the end-to-end tests: they wait for something that they name.

use super::source::{files, root};

/// Sleeps in `tests/it` and `tests/common`, calls of `pace` included. The number may only fall.
const BUDGET: usize = 25;

/// Comment on the line of a sleep, or above it, that names the event.
const REASON: &str = "// waits for: ";

#[test]
fn a_test_that_sleeps_names_what_it_waits_for() {
    let (mut all, mut unnamed) = (vec![], vec![]);
    for path in ["tests/it", "tests/common"].iter().flat_map(|folder| files(&root().join(folder))) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let place = format!("{}:{}: {}", path.display(), n + 1, line.trim());
            let sleeps = line.contains("sleep(") || line.contains("Timer::after(");
            let is_named = line.contains(REASON) || n > 0 && lines[n - 1].contains(REASON);
            if sleeps && !is_named {
                unnamed.push(place.clone());
            }
            if sleeps || line.contains("pace(") && !line.contains("fn pace(") {
                all.push(place);
            }
        }
    }
    assert!(unnamed.is_empty(), "without `{REASON}`:\n{}", unnamed.join("\n"));
    assert!(all.len() <= BUDGET, "{} of {BUDGET}:\n{}", all.len(), all.join("\n"));
}
