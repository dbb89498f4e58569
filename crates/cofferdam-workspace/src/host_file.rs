//! Work on files of the host: on a thread of its own, with errors that name the file.

use std::io;

use tokio::task::JoinError;

/// A file of the host could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} {path}")]
pub struct HostFileError {
    /// What was tried, such as `read`.
    pub operation: &'static str,
    /// The path on the host, or in a source.
    pub path: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// Runs work that blocks on a thread of its own.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<HostFileError> + Send + 'static,
{
    joined(tokio::task::spawn_blocking(work).await)
}

/// Takes the result of such a thread; a panic there is a panic here.
pub(crate) fn joined<T, E: From<HostFileError>>(
    result: Result<Result<T, E>, JoinError>,
) -> Result<T, E> {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                let (operation, path) = ("finish work on", "files of the host".to_owned());
                Err(HostFileError { operation, path, source: io::Error::other(error) }.into())
            }
        },
    }
}

/// Text of bytes that came from a file system or a sandbox, with control characters written out.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.is_empty() {
        return ".".to_owned();
    }
    let mut line = String::new();
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
