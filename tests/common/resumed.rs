//! Reading from a connection while the machine may pause.

use std::io::{ErrorKind, Read, Write};

/// A connection whose reads go on after an interruption. The system ends a read that has a time limit when the process was
/// paused, even without a signal handler (signal(7), "Interruption of system calls").
#[derive(Debug)]
pub struct Resumed<S>(pub S);

impl<S: Read> Read for Resumed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        resumed(|| self.0.read(buffer))
    }
}

impl<S: Write> Write for Resumed<S> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        resumed(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        resumed(|| self.0.flush())
    }
}

/// Calls `operation` again for as long as it is interrupted.
pub fn resumed<T>(mut operation: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
