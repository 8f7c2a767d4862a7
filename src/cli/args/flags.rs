//! On/off options: `--x` and `--no-x` on the command line, true or false in the environment and the configuration file.
//! Their fields are of the type `bool`.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Prefix of the option that turns an on/off option off.
const NO: &str = "no-";

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
    use crate::cli::args;

    /// Returns whether the server is plain; `None` for wrong arguments.
    fn plain(words: &str) -> Option<bool> {
        let words: Vec<&str> = words.split(' ').collect();
        let matches = args::command(&[]).try_get_matches_from(&words).ok()?;
        let given = args::given_off(&matches);
        let matches = args::command(&given).try_get_matches_from(&words).ok()?;
        Some(matches.subcommand_matches("serve")?.get_flag("plain"))
    }

    #[test]
    fn the_last_of_an_option_and_its_negative_holds() {
        assert_eq!(plain("roomtone serve"), Some(false));
        assert_eq!(plain("roomtone serve --plain"), Some(true));
        assert_eq!(plain("roomtone serve --plain --no-plain"), Some(false));
        assert_eq!(plain("roomtone serve --no-plain --plain"), Some(true));
        assert_eq!(plain("roomtone --no-json serve --no-plain"), Some(false));
        assert_eq!(plain("roomtone serve --no-listen"), None);
        assert_eq!(plain("roomtone --no-plain serve"), None);
    }
}
