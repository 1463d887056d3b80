//! Whether the keys that are set open everything that is encrypted in the store. A process that starts without one of them could
//! not sign a part of what it sends, and would tell nobody but its log.
//!
//! For a process that starts. A row that is encrypted later, with a key that this process does not have, is told where
//! it is opened.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use signalpost_runtime::Shutdown;
use signalpost_store::Store;
use signalpost_vault::KeyRing;
use tokio::time::{sleep, timeout};

use crate::{Failure, Finding, Parts};

/// How long the start waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a store that is away is asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Those of the ids (of keys that something is encrypted with) that are not set.
pub fn missing<'a>(vault: &KeyRing, used: &'a [String]) -> Vec<&'a str> {
    used.iter().map(String::as_str).filter(|id| !vault.knows(id)).collect()
}

/// Says which are missing.
///
/// # Errors
/// One is.
pub fn check(vault: &KeyRing, used: &[String]) -> Result<(), Failure> {
    match missing(vault, used).as_slice() {
        [] => Ok(()),
        ids => Err(Failure::setting(told(ids))),
    }
}

fn told(missing: &[&str]) -> String {
    let (keys, are) = if missing.len() == 1 { ("the key", "is") } else { ("the keys", "are") };
    format!(
        "secrets in the store are encrypted with {keys} `{}`, which {are} not set: add {} to SIGNALPOST_ENCRYPTION_KEYS \
         (behind the newest; `encryption_keys` in the keys.toml of a data directory), from where keys are backed up",
        missing.join("`, `"),
        if missing.len() == 1 { "it" } else { "them" }
    )
}

/// How the secrets of a store are kept, for `signalpost doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Rows that are not encrypted.
    pub plain: u64,
    /// Rows that are encrypted, by the id of the key.
    pub sealed: BTreeMap<String, u64>,
}

/// What there is to say of keys and of what they encrypt. `rotate` is the command that encrypts everything.
pub fn findings(vault: &KeyRing, kept: &Kept, rotate: &str) -> Vec<Finding> {
    const KEYS: &str = "encryption keys";
    const SECRETS: &str = "secrets at rest";
    let used: Vec<String> = kept.sealed.keys().cloned().collect();
    let set = vault.ids().collect::<Vec<_>>().join(", ");
    let keys = match missing(vault, &used).as_slice() {
        [] => Finding::good(KEYS, format!("{set}; the first encrypts")),
        ids => Finding::bad(
            KEYS,
            format!("set are {set}; {}", told(ids)),
            "nothing starts without; see the manual, \"Keys\"",
        ),
    };
    let newest = kept.sealed.get(vault.newest()).copied().unwrap_or_default();
    let older = kept.sealed.values().sum::<u64>() - newest;
    let secrets = match (kept.plain, older) {
        (0, 0) => Finding::good(SECRETS, format!("all are encrypted with {} ({newest})", vault.newest())),
        (0, older) => Finding::note(SECRETS, format!("{older} are encrypted with an older key; {rotate}")),
        (plain, 0) => Finding::bad(SECRETS, format!("{plain} are not encrypted"), rotate),
        (plain, older) => {
            Finding::bad(SECRETS, format!("{plain} are not encrypted, {older} with an older key"), rotate)
        }
    };
    vec![keys, secrets]
}

/// Asks the store when a service starts. A store that is away holds the start up for a moment only; then it is asked, as a part of
/// the process, until it answers.
///
/// # Errors
/// A key is missing. Where that is known later, the part fails.
pub async fn require(
    store: &Arc<dyn Store>,
    vault: &Arc<KeyRing>,
    parts: &mut Parts,
    stop: &Shutdown,
) -> Result<(), Failure> {
    if let Ok(Ok(used)) = timeout(PATIENCE, store.sealing_keys()).await {
        return check(vault, &used);
    }
    tracing::warn!("the store does not answer; whether all keys of secrets are set is checked when it does");
    let (store, vault, stop) = (Arc::clone(store), Arc::clone(vault), stop.clone());
    parts.spawn("the check of SIGNALPOST_ENCRYPTION_KEYS", async move {
        let checked = tokio::select! {
            biased;
            () = stop.draining() => Ok(()),
            checked = ask(&*store, &vault) => checked,
        };
        if checked.is_ok() {
            stop.draining().await;
        }
        checked
    });
    Ok(())
}

async fn ask(store: &dyn Store, vault: &KeyRing) -> anyhow::Result<()> {
    loop {
        if let Ok(used) = store.sealing_keys().await {
            return check(vault, &used).map_err(|failure| anyhow::anyhow!("{failure}"));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_tells_what_is_not_as_it_should_be() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let vault = KeyRing::parse(&format!("new:{key},old:{key}")).unwrap();
        let told = |plain, sealed: &[(&str, u64)]| {
            let sealed = sealed.iter().map(|(id, rows)| ((*id).to_owned(), *rows)).collect();
            let findings = findings(&vault, &Kept { plain, sealed }, "rotate");
            let bad = findings.iter().map(Finding::is_bad).collect::<Vec<_>>();
            (bad, findings.iter().map(Finding::to_string).collect::<String>())
        };
        for (plain, sealed, bad, text) in [
            (0, &[][..], [false, false], "new, old; the first encrypts"),
            (0, &[("new", 3)], [false, false], "all are encrypted with new (3)"),
            (
                0,
                &[("new", 3), ("old", 2)],
                [false, false],
                "note  secrets at rest    2 are encrypted with an older key; rotate",
            ),
            (1, &[], [false, true], "1 are not encrypted"),
            (1, &[("old", 2)], [false, true], "1 are not encrypted, 2 with an older key"),
            (0, &[("lost", 2)], [true, false], "the key `lost`, which is not set"),
        ] {
            let (found, all) = told(plain, sealed);
            assert_eq!(found, bad, "{all}");
            assert!(all.contains(text) && !all.contains(key), "{all}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let vault = KeyRing::parse(&format!("new:{key},old:{key}")).unwrap();
        let used = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert!(check(&vault, &used(&[])).is_ok());
        assert!(check(&vault, &used(&["new", "old"])).is_ok());
        for (ids, text) in [
            (&["lost", "new"][..], "the key `lost`, which is not set"),
            (&["lost", "older"], "the keys `lost`, `older`, which are not set"),
        ] {
            let Err(Failure::Setting(told)) = check(&vault, &used(ids)) else { panic!("{ids:?}") };
            assert!(told.contains(text) && !told.contains(key), "{told}");
        }
    }
}
