//! The value of an on/off option.

use std::fmt;
use std::str::FromStr;

/// Value of an on/off option. The command line has `--x` and `--no-x` for it; the environment and the configuration
/// file give it as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flag {
    /// The option is on.
    On,
    /// The option is off.
    #[default]
    Off,
}

impl Flag {
    /// Returns whether the option is on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

impl FromStr for Flag {
    type Err = String;

    /// Accepts on, true and 1, or off, false and 0.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "1" => Ok(Self::On),
            "off" | "false" | "0" => Ok(Self::Off),
            _ => Err("an option without a value is on, true or 1, or off, false or 0".to_owned()),
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_three_words_for_each_value() {
        for (words, flag) in [(["on", "true", "1"], Flag::On), (["off", "false", "0"], Flag::Off)] {
            assert!(words.iter().all(|word| word.parse() == Ok(flag)), "{flag}");
            assert_eq!(flag.to_string(), words[0]);
        }
        assert!(["", "yes", "On", "2"].iter().all(|word| word.parse::<Flag>().is_err()));
    }
}
