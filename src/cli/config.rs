//! The configuration file: TOML, options under their long names, for all commands together. Flags win
//! over the environment, the environment over the file.

use std::path::Path;

use clap::CommandFactory;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::CliError;
use super::args::Cli;

/// Reads the file that was named, or the default one where it is there.
pub(super) fn read(named: Option<&Path>) -> Result<Table, CliError> {
    let default = crate::paths::config_dir().map(|dir| dir.join("config.toml")).filter(|path| path.exists());
    let Some(path) = named.map(Path::to_owned).or(default) else { return Ok(Table::new()) };
    let wrong = |error: String| CliError::Usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let known = known();
    match table.keys().find(|key| !known.contains(key)) {
        Some(key) => Err(wrong(format!("there is no option '{key}'; `roomtone host --help` lists them"))),
        None => Ok(table),
    }
}

/// The long names of all options of all commands.
fn known() -> Vec<String> {
    let command = Cli::command();
    let options = command.get_subcommands().flat_map(|sub| sub.get_arguments());
    options.filter_map(|option| option.get_long().map(str::to_owned)).collect()
}

/// Completes options by what the file says and they do not.
pub(super) fn complete<T: Serialize + DeserializeOwned>(options: &T, file: &Table) -> Result<T, CliError> {
    let wrong = |error: String| CliError::Usage(format!("the configuration file: {error}"));
    let mut merged = file.clone();
    merged.extend(Table::try_from(options).map_err(|error| wrong(error.to_string()))?);
    merged.try_into().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{ClientOptions, ServerOptions};

    fn file(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_options_do_not_say_the_file_says() {
        let file = file("server = 'wss://a'\nid = 'kiosk'\ninsecure = true\nfps = 5");
        let options = ClientOptions { server: Some("ws://b".into()), ..Default::default() };
        let merged = complete(&options, &file).unwrap();
        assert_eq!(merged.server.as_deref(), Some("ws://b"));
        assert_eq!((merged.id.as_deref(), merged.insecure), (Some("kiosk"), Some(true)));
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let error = complete(&ServerOptions::default(), &file("plain = 'maybe'")).unwrap_err().to_string();
        assert!(error.contains("configuration file") && error.contains("boolean"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "servre = 'x'").unwrap();
        let error = read(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("there is no option 'servre'"), "{error}");
        assert!(read(Some(&folder.path().join("none"))).is_err());
    }
}
