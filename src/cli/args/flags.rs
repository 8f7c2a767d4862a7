//! The environment variables of options, and the negatives of on/off options: `--no-x` on the command line. Fields of
//! on/off options have the type [`Flag`] and the action [`ArgAction::SetTrue`].
//!
//! [`Flag`]: crate::base::flag::Flag

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Prefix of the option that turns an on/off option off.
const NO: &str = "no-";

/// Returns the environment variable of an option, given by its long name: `ROOMTONE_MAX_ROOMS` for `max-rooms`.
pub(in crate::cli) fn variable(long: &str) -> String {
    format!("ROOMTONE_{}", long.to_uppercase().replace('-', "_"))
}

/// Returns whether an option is an on/off option.
pub(in crate::cli) fn is_flag(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

/// Lets the negative of an on/off option override it; returns other options as they are.
pub(super) fn complete(option: Arg) -> Arg {
    match option.get_long().filter(|_| is_flag(&option)).map(|long| format!("{NO}{long}")) {
        Some(negative) => option.overrides_with(negative),
        None => option,
    }
}

/// Adds `--no-x` for each on/off option `x` of a command. The last of the two on the command line holds.
pub(super) fn add_negatives(command: Command) -> Command {
    let negative = |option: &Arg| {
        let long = format!("{NO}{}", option.get_long().filter(|_| is_flag(option))?);
        let negative = Arg::new(long.clone()).long(long).action(ArgAction::SetTrue).hide(true);
        Some(negative.overrides_with(option.get_id()).global(option.is_global_set()))
    };
    let negatives: Vec<Arg> = command.get_arguments().filter_map(negative).collect();
    command.args(negatives)
}

/// Returns the long names of the options that the command line turns off.
pub(super) fn turned_off(matches: &ArgMatches) -> Vec<String> {
    let levels = std::iter::once(matches).chain(matches.subcommand().map(|(_, below)| below));
    let off = levels.flat_map(|level| {
        let negatives = level.ids().filter_map(|id| id.as_str().strip_prefix(NO));
        negatives.filter(|name| level.get_flag(&format!("{NO}{name}"))).map(str::to_owned)
    });
    off.collect()
}

#[cfg(test)]
mod tests {
    use crate::base::flag::Flag;
    use crate::cli::args;
    use crate::cli::config::Given;

    /// Returns the value of `--plain` for these arguments and this value in the file; `None` for wrong arguments.
    fn plain(words: &str, file: Option<bool>) -> Option<Flag> {
        let words: Vec<&str> = words.split(' ').collect();
        let file: Vec<Given> =
            file.iter().map(|on| Given { key: "plain".into(), texts: vec![on.to_string()] }).collect();
        let matches = args::command(&file, &[]).try_get_matches_from(&words).ok()?;
        let matches = args::command(&file, &super::turned_off(&matches)).try_get_matches_from(&words).ok()?;
        matches.subcommand_matches("serve")?.get_one("plain").copied()
    }

    #[test]
    fn the_last_of_an_option_and_its_negative_holds() {
        assert_eq!(plain("roomtone serve", None), Some(Flag::Off));
        assert_eq!(plain("roomtone serve --plain", None), Some(Flag::On));
        assert_eq!(plain("roomtone serve --plain --no-plain", None), Some(Flag::Off));
        assert_eq!(plain("roomtone serve --no-plain --plain", None), Some(Flag::On));
        assert_eq!(plain("roomtone --no-json serve --no-plain", None), Some(Flag::Off));
        assert_eq!(plain("roomtone serve --no-listen", None), None);
        assert_eq!(plain("roomtone --no-plain serve", None), None);
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        assert_eq!(plain("roomtone serve", Some(true)), Some(Flag::On));
        assert_eq!(plain("roomtone serve --no-plain", Some(true)), Some(Flag::Off));
        assert_eq!(plain("roomtone serve", Some(false)), Some(Flag::Off));
        assert_eq!(plain("roomtone serve --plain", Some(false)), Some(Flag::On));
    }
}
