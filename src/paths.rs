//! Where roomtone keeps its files (XDG base directories).

use std::path::PathBuf;

fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)))?;
    Some(base.join("roomtone"))
}

/// `$XDG_CONFIG_HOME/roomtone`: the configuration file and a user's own pipelines.
pub fn config_dir() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_STATE_HOME/roomtone`: the certificate that was made here.
pub fn state_dir() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}
