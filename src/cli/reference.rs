//! The reference of the command line, `docs/cli.md`, made from the options themselves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::{Arg, Command};

use super::{args, room_client};

/// The file, from the root of the project.
const FILE: &str = "docs/cli.md";
/// Shell command that renews the file.
const RENEW: &str = "RENEW_DOCS=1 cargo test --lib cli::reference";

/// Returns the text of the file.
fn reference() -> String {
    let mut text = format!(
        "# The command line\n\nMade from the options in `src/`; do not edit. After a change of an option, renew this file:\n\
         `{RENEW}`.\n\n{}\n",
        args::HINT
    );
    for mut command in [args::command(&[], &[]), room_client::command()] {
        command.build();
        program(&mut text, &mut command);
    }
    text
}

/// Appends a program: its commands, and each group of options once.
fn program(text: &mut String, command: &mut Command) {
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let names: Vec<String> = subcommands.map(|sub| sub.get_name().to_owned()).collect();
    let _ = writeln!(text, "\n## {}\n\n{}", command.get_name(), about(command));
    usage(text, command);
    list(text, command.get_arguments().filter(|option| option.get_help_heading().is_none()));
    examples(text, command);
    for name in &names {
        let Some(sub) = command.find_subcommand_mut(name) else { continue };
        let title = sub.get_bin_name().unwrap_or(name).to_owned();
        let _ = writeln!(text, "\n### {title}\n\n{}", about(sub));
        usage(text, sub);
        list(
            text,
            sub.get_arguments()
                .filter(|option| !option.is_global_set() && option.get_help_heading().is_none()),
        );
        let mut headings: Vec<&str> = sub.get_arguments().filter_map(Arg::get_help_heading).collect();
        let mut seen = BTreeSet::new();
        headings.retain(|heading| seen.insert(*heading));
        if !headings.is_empty() {
            let links: Vec<String> =
                headings.iter().map(|heading| format!("[{heading}](#{})", anchor(heading))).collect();
            let _ = writeln!(text, "\nFurther options: {}.", links.join(", "));
        }
        examples(text, sub);
    }
    groups(text, command, &names);
}

/// Appends the groups of options that several commands share.
fn groups(text: &mut String, command: &Command, names: &[String]) {
    let subcommands =
        || command.get_subcommands().filter(|sub| names.iter().any(|name| name == sub.get_name()));
    let mut seen = BTreeSet::new();
    let headings = subcommands().flat_map(Command::get_arguments).filter_map(Arg::get_help_heading);
    for heading in headings.filter(|heading| seen.insert(*heading)).collect::<Vec<_>>() {
        let in_group =
            |sub: &&Command| sub.get_arguments().any(|one| one.get_help_heading() == Some(heading));
        let of: Vec<String> =
            subcommands().filter(in_group).map(|sub| format!("`{}`", sub.get_name())).collect();
        let _ = writeln!(text, "\n### {heading}\n\nOptions of {}.", of.join(", "));
        let mut known = BTreeSet::new();
        let options = subcommands().flat_map(Command::get_arguments);
        list(
            text,
            options
                .filter(|one| one.get_help_heading() == Some(heading))
                .filter(|one| known.insert(one.get_id())),
        );
    }
}

fn usage(text: &mut String, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let _ =
        writeln!(text, "\n```text\n{}\n```", usage.trim_start_matches("Usage: ").replace("\n       ", "\n"));
}

fn about(command: &Command) -> String {
    command.get_long_about().or(command.get_about()).map(|text| format!("{text}.")).unwrap_or_default()
}

/// Appends the examples, and for the program itself the exit codes.
fn examples(text: &mut String, command: &Command) {
    if let Some(examples) = command.get_after_long_help().or(command.get_after_help()) {
        let examples = examples.to_string().replace(args::HINT, "");
        if !examples.trim().is_empty() {
            let _ = writeln!(text, "\n```text\n{}\n```", examples.trim_end());
        }
    }
}

/// Appends options as a list.
fn list<'a>(text: &mut String, options: impl Iterator<Item = &'a Arg>) {
    let options = options.filter(|option| !matches!(option.get_id().as_str(), "help" | "version"));
    let options = options.filter(|option| !option.is_hide_set());
    for (index, option) in options.enumerate() {
        let help = option.get_long_help().or(option.get_help()).map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<&str> =
            option.get_default_values().iter().filter_map(|value| value.to_str()).collect();
        let default = match option.get_action().takes_values() && !defaults.is_empty() {
            true => format!(" [default: {}]", defaults.join(", ")),
            false => String::new(),
        };
        let start = if index == 0 { "\n" } else { "" };
        let _ =
            writeln!(text, "{start}- `{option}`: {}{default}", help.replace("\n\n", ". ").replace('\n', " "));
    }
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

#[test]
fn the_reference_matches_the_options() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = reference();
    if std::env::var_os("RENEW_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{FILE} does not match the options; renew it: {RENEW}");
}
