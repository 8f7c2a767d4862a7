//! Everything that fuzzing found so far, and what it began with, through the functions that are fuzzed.

#[path = "../../fuzz/targets.rs"]
mod targets;

#[test]
fn all_that_was_found_so_far_is_taken_or_refused() {
    for (name, target) in targets::ALL {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut ran = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            ran += 1;
        }
        assert!(ran >= 5, "{name} has only {ran}");
    }
}
