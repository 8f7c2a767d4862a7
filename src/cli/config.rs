//! The configuration file: TOML, with the options of all commands under their long names. Its values become the
//! defaults of the options: flags override the environment, and the environment overrides the file.

use std::path::{Path, PathBuf};

use clap::builder::ValueRange;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::CliError;
use super::args::flags::{self, variable};

/// Variable with the filter of the log, which has no option.
const LOG: &str = "ROOMTONE_LOG";
/// Prefix of all environment variables of the program.
const PREFIX: &str = "ROOMTONE_";

/// Value of an option in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// Long name of the option, without dashes.
    pub(super) key: String,
    /// Values in the form of the command line: several if the option takes a list.
    pub(super) texts: Vec<String>,
}

/// Reads the file `named`, or the default file if it exists, and checks each value with the parser of its option.
pub(super) fn read(named: Option<&Path>, command: &Command) -> Result<Vec<Given>, CliError> {
    let default = crate::paths::config_dir().map(|dir| dir.join("config.toml")).filter(|path| path.exists());
    let Some(path) = named.map(Path::to_owned).or(default) else { return Ok(vec![]) };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
    parse(&File { path, text: &text }, command)
}

struct File<'a> {
    path: PathBuf,
    text: &'a str,
}

impl File<'_> {
    /// Returns an error with the line of the byte `at`.
    fn wrong(&self, at: usize, why: &str) -> CliError {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        CliError::Usage(format!("{}, line {line}: {why}", self.path.display()))
    }
}

fn parse(file: &File<'_>, command: &Command) -> Result<Vec<Given>, CliError> {
    let table = DeTable::parse(file.text)
        .map_err(|error| file.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let known = options(command);
    let mut given = Vec::new();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        let Some(option) = known.iter().find(|option| option.get_long() == Some(name)) else {
            let names = known.iter().filter_map(|option| option.get_long());
            let why = format!(
                "there is no option '{name}'{}; `roomtone host --help` lists them",
                did_you_mean(name, names)
            );
            return Err(file.wrong(key.span().start, &why));
        };
        let checked = texts(value).and_then(|texts| fits(option, value.get_ref(), &texts).map(|()| texts));
        let texts = checked.map_err(|why| file.wrong(value.span().start, &format!("{name}: {why}")))?;
        given.push(Given { key: name.to_owned(), texts });
    }
    Ok(given)
}

/// Returns the options of all commands that the file may set: those with a long name, except `--config` and the negatives
/// of on/off options.
fn options(command: &Command) -> Vec<&Arg> {
    let all = command.get_arguments().chain(command.get_subcommands().flat_map(Command::get_arguments));
    all.filter(|option| option.get_long().is_some_and(|long| long != "config") && !option.is_hide_set())
        .collect()
}

/// Converts a value to its form on the command line, where a number is a text too.
fn texts(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let wrong = |is: &str| Err(format!("{is} is no value of an option"));
    Ok(vec![match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.as_str().to_owned(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(values) => {
            let one = |value| match texts(value)?.as_slice() {
                [text] if !value.get_ref().is_array() => Ok(text.clone()),
                _ => Err("a list in a list is no value of an option".to_owned()),
            };
            return values.iter().map(one).collect();
        }
        DeValue::Datetime(_) => return wrong("a date"),
        DeValue::Table(_) => return wrong("a table"),
    }])
}

/// Checks a value against its option; the error gives the reason in words.
fn fits(option: &Arg, value: &DeValue<'_>, texts: &[String]) -> Result<(), String> {
    let possible: Vec<String> =
        option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    match texts {
        _ if flags::is_flag(option) => match texts {
            [text] if text == "true" || text == "false" => Ok(()),
            _ => Err(format!("true or false is wanted, not {}", value.type_str())),
        },
        _ if value.is_bool() => Err("a text or a number is wanted, not true or false".to_owned()),
        [] => Err("a list without anything in it".to_owned()),
        [_, _, ..] if !matches!(option.get_action(), ArgAction::Append) => {
            Err("one value is wanted, not a list".to_owned())
        }
        texts => texts.iter().try_for_each(|text| fits_alone(option, text, &possible)),
    }
}

/// Checks a value with the option's own parser.
fn fits_alone(option: &Arg, text: &str, possible: &[String]) -> Result<(), String> {
    if matches!(option.get_action(), ArgAction::Count) {
        return text.parse::<u8>().map(drop).map_err(|_| format!("'{text}' is not a small number"));
    }
    let mut probe =
        Arg::new("probe").long("probe").num_args(option.get_num_args().unwrap_or(ValueRange::SINGLE));
    probe = probe.value_parser(option.get_value_parser().clone());
    let command = Command::new("probe").no_binary_name(true).arg(probe);
    let Err(error) = command.try_get_matches_from([format!("--probe={text}")]) else { return Ok(()) };
    let why = match (possible, std::error::Error::source(&error)) {
        ([], Some(why)) => why.to_string(),
        ([], None) => "the option does not take it".to_owned(),
        (possible, _) => format!("one of {} is wanted", possible.join(", ")),
    };
    Err(format!("'{text}' is no value for it: {why}"))
}

/// Returns the known name that is most similar, as the end of a sentence; an empty text if none is similar.
fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // On/off options are named without the "no-" of the command line.
    let bare = name.strip_prefix("no-").unwrap_or(name);
    let distance =
        |known| strsim::damerau_levenshtein(name, known).min(strsim::damerau_levenshtein(bare, known));
    let all = known.map(|known| (distance(known), known));
    match all.min() {
        Some((distance, nearest)) if distance <= 2.max(name.len() / 4) => format!("; is '{nearest}' meant?"),
        _ => String::new(),
    }
}

/// Returns a note for each variable that has the program's prefix and belongs to no option.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>, command: &Command) -> Vec<String> {
    let longs = options(command).into_iter().filter_map(Arg::get_long);
    let mut known: Vec<String> = longs.chain(["config"]).map(variable).collect();
    known.push(LOG.to_owned());
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort();
    let note = |name: &String| {
        format!(
            "the environment sets {name}, which no option reads{}",
            did_you_mean(name, known.iter().map(String::as_str))
        )
    };
    unknown.iter().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::command;

    fn given(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let file = File { path: "/x/config.toml".into(), text };
        let given = parse(&file, &command(&[], &[])).map_err(|error| error.to_string())?;
        Ok(given.into_iter().map(|one| (one.key, one.texts)).collect())
    }

    #[test]
    fn values_are_read_as_on_the_command_line() {
        let text = "listen = '127.0.0.1:1'\nmax-per-address = 5\nplain = true\n\
                    allow-origin = ['a', 7]\nstun = 'stun:a'\nturn-user = 1_234\nturn-password = 0.50";
        let found = given(text).unwrap();
        let one = |key: &str, text: &str| (key.to_owned(), vec![text.to_owned()]);
        for expected in [
            one("listen", "127.0.0.1:1"),
            one("max-per-address", "5"),
            one("plain", "true"),
            ("allow-origin".to_owned(), vec!["a".to_owned(), "7".to_owned()]),
            one("stun", "stun:a"),
            one("turn-user", "1234"),
            one("turn-password", "0.50"),
        ] {
            assert!(found.contains(&expected), "{expected:?} in {found:?}");
        }
    }

    #[test]
    fn errors_in_the_file_name_the_option_and_the_line() {
        for (text, words) in [
            ("\nplain = 'maybe'", "line 2: plain: true or false is wanted, not string"),
            ("plain = 1", "line 1: plain: true or false is wanted, not integer"),
            ("turn-user = true", "line 1: turn-user: a text or a number is wanted, not true or false"),
            ("listen = ['a:1', 'b:1']", "line 1: listen: one value is wanted, not a list"),
            ("cert = { file = 'x' }", "line 1: cert: a table is no value of an option"),
            ("cert = 2026-01-01", "line 1: cert: a date is no value of an option"),
            ("stun = [['a']]", "line 1: stun: a list in a list is no value of an option"),
            ("stun = []", "line 1: stun: a list without anything in it"),
            (
                "max-rooms = 'many'",
                "line 1: max-rooms: 'many' is no value for it: invalid digit found in string",
            ),
            ("max-rooms = -1", "line 1: max-rooms: '-1' is no value for it: invalid digit found in string"),
            ("# x\n\nlisten 7", "line 3: "),
            ("servre = 'x'", "line 1: there is no option 'servre'"),
            ("max_rooms = 7", "line 1: there is no option 'max_rooms'; is 'max-rooms' meant?"),
            ("config = 'x'", "line 1: there is no option 'config'"),
            ("no-plain = true", "line 1: there is no option 'no-plain'; is 'plain' meant?"),
        ] {
            let error = given(text).unwrap_err();
            assert!(error.starts_with("/x/config.toml, ") && error.contains(words), "{text}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(read(Some(&folder.path().join("none")), &command(&[], &[])).is_err());
    }

    #[test]
    fn an_unknown_variable_names_the_nearest_one() {
        let names =
            ["ROOMTONE_LISTN", "ROOMTONE_LISTEN", "ROOMTONE_LOG", "ROOMTONE_CONFIG", "HOME", "ROOMTONE"];
        let notes = unknown_variables(names.iter().map(|name| (*name).to_owned()), &command(&[], &[]));
        let note = "the environment sets ROOMTONE_LISTN, which no option reads; is 'ROOMTONE_LISTEN' meant?";
        assert_eq!(notes, [note]);
    }
}
