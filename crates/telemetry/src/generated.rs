//! Generated files that are committed: a test fails when one is stale, and writes it anew with
//! `SIGNALPOST_REGENERATE=1`.

use std::{fs, path::Path};

/// The variable that makes the tests write what they generate.
pub const REGENERATE: &str = "SIGNALPOST_REGENERATE";

/// Compares a committed file with what it should be; or writes it.
///
/// # Errors
/// It is stale or cannot be written; the text says what to do.
pub fn check(path: impl AsRef<Path>, content: &str) -> Result<(), String> {
    let path = path.as_ref();
    if std::env::var_os(REGENERATE).is_some() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        return fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()));
    }
    match fs::read_to_string(path) {
        Ok(committed) if committed == content => Ok(()),
        Ok(_) => Err(format!("{} is stale: run its test with {REGENERATE}=1", path.display())),
        Err(error) => Err(format!("{}: {error}; run its test with {REGENERATE}=1", path.display())),
    }
}
