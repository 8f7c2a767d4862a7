//! Creates files whose names depend on input from peers, or may already exist: never overwrites a file, never follows a
//! symbolic link.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::random;

/// The longest name of a file in a folder, in bytes (`NAME_MAX` of Linux and macOS).
pub const MAX_NAME: usize = 255;

/// The bytes of a name that are kept free for what [`create_new`] and [`Partial`] add: `-`, a number or a random id of
/// 32 digits, and `.part`.
pub const SPARE: usize = 40;

/// The highest number that is appended to a name; later attempts append a random id.
const LAST_NUMBER: u32 = 99;

/// The number of random names that are tried before giving up.
const RANDOM_NAMES: usize = 3;

/// The bytes of the digest in a name, written as twice as many hexadecimal digits after a `-`.
const DIGEST: usize = 8;

/// The placeholder for a peer's id in a path template.
const PEER: &str = "{peer}";

/// Returns an id as a part of a file name: at most `room` bytes, letters and digits of any language, `-` and `_`.
///
/// If a character was replaced, or the id was empty or shortened, the first 16 hexadecimal digits of the id's SHA-256
/// follow, to keep the names of two ids apart. A `room` below these 17 bytes counts as 17.
pub fn name_of(id: &str, room: usize) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let mut name: String = id.chars().map(safe).collect();
    if name == id && (1..=room).contains(&name.len()) {
        return name;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let digest: String = digest.as_ref()[..DIGEST].iter().map(|byte| format!("{byte:02x}")).collect();
    let most = room.saturating_sub(digest.len() + 1);
    let end = (0..=most.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    name.truncate(end);
    format!("{name}-{digest}")
}

/// Returns the path for a peer: replaces each `{peer}` in `template` with [`name_of`] the id. The id gets the bytes
/// that the rest of its path component leaves.
pub fn path_for(template: &str, id: &str) -> PathBuf {
    let part = |part: &str| {
        let count = part.matches(PEER).count();
        let rest = part.len() - count * PEER.len() + SPARE;
        let room = MAX_NAME.saturating_sub(rest) / count.max(1);
        part.replace(PEER, &name_of(id, room))
    };
    template.split('/').map(part).collect::<Vec<_>>().join("/").into()
}

/// Creates a new file at `wanted`, or at the first free of `NAME-2`, `NAME-3` … (the number goes before the extension).
///
/// Existing files and links stay as they are, and links are not followed (`O_EXCL`, POSIX open(2)).
///
/// # Errors
///
/// Errors of the operating system; [`io::ErrorKind::AlreadyExists`] if no name is free.
pub fn create_new(wanted: &Path) -> io::Result<(File, PathBuf)> {
    first_free(wanted, |path| Ok((open_new(&path)?, path)))
}

/// A file that is written as `NAME.part` and renamed once it is complete.
#[derive(Debug)]
pub struct Partial {
    part: PathBuf,
    wanted: PathBuf,
}

impl Partial {
    /// Creates `NAME.part` for `wanted`, or for the first of `NAME-2`, `NAME-3` … where neither file exists.
    ///
    /// # Errors
    ///
    /// Same as [`create_new`].
    pub fn create(wanted: &Path) -> io::Result<(File, Self)> {
        first_free(wanted, |path| {
            if path.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let mut part = path.into_os_string();
            part.push(".part");
            let part = PathBuf::from(part);
            Ok((open_new(&part)?, Self { part, wanted: wanted.to_owned() }))
        })
    }

    /// Returns the path of the partial file.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Renames the file to the first of its names that is free now, and returns the new path.
    ///
    /// # Errors
    ///
    /// Same as [`create_new`]; the partial file is kept on error.
    pub fn finish(self) -> io::Result<PathBuf> {
        first_free(&self.wanted, |path| {
            // A hard link fails if the name exists; rename(2) would replace the existing file.
            match std::fs::hard_link(&self.part, &path) {
                Ok(()) => std::fs::remove_file(&self.part)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                // File systems without hard links (FAT) need a placeholder: rename replaces only the file created here.
                Err(_) => {
                    open_new(&path)?;
                    std::fs::rename(&self.part, &path)?;
                }
            }
            Ok(path)
        })
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Calls `attempt` with one candidate path after another until one is free.
fn first_free<T>(wanted: &Path, mut attempt: impl FnMut(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let numbers = (2..=LAST_NUMBER).map(|number| number.to_string());
    let random = std::iter::from_fn(|| random::secret_id().ok()).take(RANDOM_NAMES);
    let others = numbers.chain(random).map(|mark| marked(wanted, &mark));
    for path in std::iter::once(wanted.to_owned()).chain(others) {
        match attempt(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names like this one are taken"))
}

/// Returns the path with `mark` inserted between the file name and its extension.
fn marked(path: &Path, mark: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-");
    name.push(mark);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_leads_nowhere_and_two_ids_have_two_names() {
        assert_eq!(name_of("späti-7_x", 100), "späti-7_x");
        assert_eq!(name_of("../etc", 100), "___etc-f7f9121fdb53d8de");
        assert_ne!(name_of("a.b", 100), name_of("a_b", 100));
        let long = "\u{1D4D0}".repeat(64);
        let other = "\u{1D4D0}".repeat(63) + "b";
        assert_eq!(name_of(&long, 256).len(), 256);
        assert!(name_of(&long, 255).len() <= 255);
        assert_ne!(name_of(&long, 40), name_of(&other, 40));
    }

    proptest! {
        #[test]
        fn names_of_ids_fit_and_differ(one in "\\PC{1,80}", other in "\\PC{1,80}", room in 17..300_usize) {
            let (a, b) = (name_of(&one, room), name_of(&other, room));
            prop_assert!(!a.is_empty() && a.len() <= room);
            prop_assert!(a.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_'));
            prop_assert_eq!(one == other, a == b);
        }

        #[test]
        fn every_id_gives_a_file_that_can_be_made(id in "\\PC{1,80}", before in "[a-z]{0,60}") {
            let home = tempfile::tempdir().unwrap();
            let template = format!("{}/{before}{{peer}}.{{peer}}.bin", home.path().display());
            for _ in 0..3 {
                let (_, part) = Partial::create(&path_for(&template, &id)).unwrap();
                let path = part.finish().unwrap();
                prop_assert_eq!(path.parent().unwrap(), home.path());
            }
        }
    }

    #[test]
    fn nothing_is_overwritten_or_followed() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        std::fs::write(path("secret"), "before").unwrap();
        for name in ["a.bin", "a-2.bin.part"] {
            std::os::unix::fs::symlink(path("secret"), path(name)).unwrap();
        }
        std::os::unix::fs::symlink(path("nowhere"), path("a-3.bin")).unwrap();
        let (mut first, one) = Partial::create(&path("a.bin")).unwrap();
        let (mut second, two) = Partial::create(&path("a.bin")).unwrap();
        assert_eq!((one.path(), two.path()), (&*path("a-4.bin.part"), &*path("a-5.bin.part")));
        for (file, text) in [(&mut first, "one"), (&mut second, "two")] {
            std::io::Write::write_all(file, text.as_bytes()).unwrap();
        }
        // Another program creates a file with this name in the meantime.
        std::fs::write(path("a-4.bin"), "other").unwrap();
        let names = [two.finish().unwrap(), one.finish().unwrap()];
        assert_eq!(names, [path("a-2.bin"), path("a-5.bin")]);
        let text = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(["a-4.bin", "a-2.bin", "a-5.bin", "secret"].map(text), ["other", "two", "one", "before"]);
        assert!(!path("nowhere").exists() && !path("a-4.bin.part").exists());
        let (_, made) = create_new(&path("a.bin")).unwrap();
        assert_eq!(made, path("a-6.bin"));
        assert!(create_new(&path("no/such/folder")).is_err());
    }

    #[test]
    fn names_do_not_run_out_at_the_last_number() {
        let home = tempfile::tempdir().unwrap();
        let wanted = home.path().join("x");
        let names: std::collections::BTreeSet<_> =
            (0..LAST_NUMBER + 2).map(|_| create_new(&wanted).unwrap().1).collect();
        assert_eq!(names.len() as u32, LAST_NUMBER + 2);
    }
}
