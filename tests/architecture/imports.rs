//! Imports between files: found by name, through re-exports, as the compiler would.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;

/// Imports between files, as indices into the sources.
pub struct Imports {
    pub of: Vec<BTreeSet<usize>>,
}

impl Imports {
    /// Finds which files each file names outside tests. A re-export leads to the file that defines the name; the
    /// re-export itself is no import.
    pub fn new(sources: &[Source]) -> Self {
        let (uses, others): (Vec<Vec<Use>>, Vec<String>) = sources.iter().map(uses).unzip();
        let name = |found: &Use| (found.name.clone(), found.path.clone());
        let names = Names {
            modules: sources.iter().enumerate().map(|(n, source)| (source.module(), n)).collect(),
            names: uses.iter().map(|uses| uses.iter().map(name).collect()).collect(),
        };
        let of = sources.iter().enumerate().map(|(n, source)| {
            let used = uses[n].iter().filter(|found| !found.public).map(|found| found.path.clone());
            let files =
                used.chain(paths(&others[n])).filter_map(|path| names.resolve(source.module(), &path, 0));
            files.filter(|target| *target != n).collect()
        });
        Self { of: of.collect() }
    }

    /// Groups of files that import each other in a circle.
    pub fn circles(&self) -> Vec<Vec<usize>> {
        let reach: Vec<BTreeSet<usize>> = (0..self.of.len()).map(|from| self.reach(from)).collect();
        let mut circles: Vec<Vec<usize>> = vec![];
        for from in 0..self.of.len() {
            let circle: Vec<usize> =
                reach[from].iter().copied().filter(|to| reach[*to].contains(&from)).collect();
            if circle.len() > 1 && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reach(&self, from: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            next.extend(self.of[file].iter().filter(|to| found.insert(**to)));
        }
        found
    }
}

struct Use {
    /// The name it has in this file; `*` of a glob import.
    name: String,
    path: Vec<String>,
    public: bool,
}

/// All `use` items of a file, one for each name, and the file's code without them.
fn uses(source: &Source) -> (Vec<Use>, String) {
    let (mut found, mut others) = (vec![], source.code.clone());
    for (at, _) in source.code.match_indices("use ") {
        let before = source.code[..at].rsplit(['\n', ';', '{', '}']).next().unwrap().trim();
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        let item = source.code[at + 4..].split(';').next().unwrap();
        others.replace_range(at..at + 4 + item.len(), &" ".repeat(4 + item.len()));
        let mut leaves = vec![];
        leaves_of(item, &mut vec![], &mut leaves);
        let public = !before.is_empty();
        found.extend(leaves.into_iter().map(|(name, path)| Use { name, path, public }));
    }
    (found, others)
}

/// The names of a use tree and the paths that they stand for.
fn leaves_of(tree: &str, prefix: &mut Vec<String>, leaves: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    let depth = prefix.len();
    let (head, group) = tree.split_once('{').map_or((tree, None), |(head, group)| (head, Some(group)));
    let (head, alias) =
        head.split_once(" as ").map_or((head, None), |(head, name)| (head, Some(name.trim())));
    prefix.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    if let Some(group) = group {
        let mut nesting = 0;
        let inside = &group[..group.rfind('}').unwrap_or(group.len())];
        let parts = inside.split(|c| {
            nesting += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && nesting == 0
        });
        parts.filter(|part| !part.trim().is_empty()).for_each(|part| leaves_of(part, prefix, leaves));
    } else {
        let mut path = prefix.clone();
        path.pop_if(|last| last == "self");
        let name = alias.or(path.last().map(String::as_str)).unwrap_or_default();
        leaves.push((name.to_owned(), path));
    }
    prefix.truncate(depth);
}

/// Paths in the code outside `use` items; the scope of a visibility is none.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = vec![];
    for (at, _) in code.match_indices("::") {
        let head = |c: char| c.is_alphanumeric() || c == '_';
        let start = code[..at].rfind(|c| !head(c)).map_or(0, |before| before + 1);
        if start == at || code[..start].ends_with("::") || code[..start].ends_with("pub(in ") {
            continue;
        }
        let text: String = code[start..].chars().take_while(|c| head(*c) || *c == ':').collect();
        found.push(text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
    }
    found
}

/// The modules of the crate with their files, and the names of each file.
struct Names {
    modules: BTreeMap<Vec<String>, usize>,
    names: Vec<BTreeMap<String, Vec<String>>>,
}

impl Names {
    /// The file that a path from the module `at` leads to; none for a path into another crate.
    fn resolve(&self, mut at: Vec<String>, path: &[String], depth: usize) -> Option<usize> {
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" | "roomtone" => at.clear(),
            "super" => drop(at.pop()),
            _ => {}
        }
        let is_anchored = matches!(path[0].as_str(), "crate" | "roomtone" | "self" | "super");
        if is_anchored {
            rest = &path[1..];
            while let Some(("super", after)) =
                rest.split_first().map(|(first, after)| (first.as_str(), after))
            {
                at.pop();
                rest = after;
            }
        }
        for (n, part) in rest.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(part)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let file = *self.modules.get(&at)?;
            let here = (is_anchored || n > 0).then_some(file);
            let Some(target) = self.names[file].get(part).filter(|_| depth < 8) else { return here };
            return self.resolve(at, &[target, &rest[n + 1..]].concat(), depth + 1).or(here);
        }
        self.modules.get(&at).copied()
    }
}
