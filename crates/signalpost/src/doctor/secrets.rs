//! The keys of secrets at rest of `dev` and `standalone`, and what is encrypted with them. Only looks: no key is made.

use signalpost_config::Settings;
use signalpost_core::Secret;
use signalpost_wiring::{
    Finding,
    keys::{self, Kept},
    settings as to,
};

use crate::data_dir;

const WHAT: &str = "encryption keys";
const ROTATE: &str = "the next start encrypts everything with the newest; see also `signalpost rotate-keys`";

/// Nothing before the first start, which makes all of it.
pub fn of_directory(settings: &Settings) -> Vec<Finding> {
    let (path, mut settings) = (&settings.storage.data_dir, settings.clone());
    if settings.storage.encryption_keys.is_none() {
        match data_dir::encryption_keys(path) {
            Ok(Some(keys)) => settings.storage.encryption_keys = Some(Secret::new(keys)),
            Ok(None) if data_dir::database(path).exists() => {
                return vec![match data_dir::lost_keys(path) {
                    Some(lost) => Finding::bad(WHAT, lost, "nothing starts without"),
                    None => Finding::note(WHAT, "none yet; the next start makes one"),
                }];
            }
            Ok(None) => return Vec::new(),
            Err(failure) => {
                return vec![Finding::bad(WHAT, failure.to_string(), "correct it, or restore it from a backup")];
            }
        }
    }
    let vault = match to::vault(&settings) {
        Ok(vault) => vault,
        Err(failure) => return vec![Finding::bad(WHAT, failure.to_string(), "correct the setting, or keys.toml")],
    };
    let file = data_dir::database(path);
    if !file.exists() {
        return keys::findings(&vault, &Kept::default(), ROTATE);
    }
    match signalpost_store_sqlite::inspect(&file) {
        Ok(Some(found)) => keys::findings(&vault, &Kept { plain: found.plain, sealed: found.sealed }, ROTATE),
        Ok(None) => vec![Finding::note("secrets at rest", format!("of a version before encryption; {ROTATE}"))],
        // Told of the database.
        Err(_) => Vec::new(),
    }
}
