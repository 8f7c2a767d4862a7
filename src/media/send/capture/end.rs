//! Reasons why a source delivers no frames.

/// Reason why a source stopped delivering frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The source was not available at its start; holds the reason.
    Absent(String),
    /// The source failed, or a live source reached its end; holds the reason.
    Stopped(String),
    /// A source that is not live reached its end.
    Finished,
    /// A file of a web server reached its end: it is opened again.
    Again,
}

/// Reason why a source does not deliver its first frame.
#[derive(Debug)]
pub(super) enum Fault {
    /// The source has no media of the requested kind.
    Lacks,
    Failed(String),
}
