//! The data directory of `dev` and `standalone`: who owns it, and the keys in it.
//!
//! ```text
//! signalpost-data/
//!   keys.toml        the operator's key, and those of secrets at rest, newest first; mode 0600
//!   lock             held by the process that runs on this directory
//!   signalpost.db…   everything else, SQLite
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use signalpost_core::Entropy;
use signalpost_vault::KeyRing;

use signalpost_wiring::Failure;

/// Where it is unless a setting says otherwise.
pub const DEFAULT: &str = "signalpost-data";

const KEYS: &str = "keys.toml";
const LOCK: &str = "lock";

/// A data directory that this process owns until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What is in the file of keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The operator's.
    pub admin_key: String,
    /// As `SIGNALPOST_ENCRYPTION_KEYS`. Empty in files of before there were any, and where they were set from elsewhere.
    #[serde(default)]
    pub encryption_keys: String,
}

impl Keys {
    /// A new operator's key, and none of secrets at rest.
    fn of_operator(entropy: &dyn Entropy) -> Self {
        let mut random = [0; 20];
        entropy.fill(&mut random);
        let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { admin_key: format!("op_{key}"), encryption_keys: String::new() }
    }
}

impl DataDir {
    /// Makes the directory where it is missing, and owns it.
    ///
    /// # Errors
    /// It cannot be made or written, or another process owns it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_file(path))
            .with_context(|| format!("cannot write to the data directory {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::Other(anyhow::anyhow!(
                "the data directory {shown} is in use by another process; stop it, or set SIGNALPOST_DATA_DIR"
            ))),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}"))?,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        database(&self.path)
    }

    /// The keys: made on the first start, the same ever after.
    ///
    /// # Errors
    /// The file of keys cannot be read or written, or is none; or there is something in the database already that is encrypted with keys
    /// that a file had: then nothing is written.
    pub fn keys(&self, entropy: &dyn Entropy) -> Result<Keys, Failure> {
        let path = keys_file(&self.path);
        let mut keys = read(&path)?.unwrap_or_else(|| Keys::of_operator(entropy));
        if keys.encryption_keys.is_empty() {
            if let Some(lost) = lost_keys(&self.path) {
                return Err(Failure::Setting(lost));
            }
            keys.encryption_keys = KeyRing::generate(&new_id("", entropy), entropy).reveal().to_owned();
            self.write(&path, &keys)?;
        }
        Ok(keys)
    }

    /// The operator's key alone, where those of secrets at rest are a setting: made on the first start, the same ever after.
    ///
    /// # Errors
    /// The file of keys cannot be read or written, or is none.
    pub fn admin_key(&self, entropy: &dyn Entropy) -> Result<String, Failure> {
        let path = keys_file(&self.path);
        if let Some(keys) = read(&path)? {
            return Ok(keys.admin_key);
        }
        let keys = Keys::of_operator(entropy);
        self.write(&path, &keys)?;
        Ok(keys.admin_key)
    }

    /// Puts a new key before those of secrets at rest: it encrypts from now on, all decrypt.
    ///
    /// # Errors
    /// The file of keys cannot be read or written, or is none.
    pub fn add_encryption_key(&self, entropy: &dyn Entropy) -> Result<Keys, Failure> {
        let mut keys = self.keys(entropy)?;
        let newest = KeyRing::generate(&new_id(&keys.encryption_keys, entropy), entropy);
        keys.encryption_keys = format!("{},{}", newest.reveal(), keys.encryption_keys);
        self.write(&keys_file(&self.path), &keys)?;
        Ok(keys)
    }

    /// Whole or not at all, and on disk: a key that was shown once is not to be lost.
    fn write(&self, path: &Path, keys: &Keys) -> anyhow::Result<()> {
        self.replace(path, keys).with_context(|| format!("cannot write {}", path.display()))
    }

    fn replace(&self, path: &Path, keys: &Keys) -> anyhow::Result<()> {
        let unfinished = path.with_extension("toml.new");
        let text = format!(
            "# Made by signalpost on its first start. Keep it as you keep the data.\n{}",
            toml::to_string(keys)?
        );
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

/// `k1-3fa91c`, `k2-…`: the number is for people, the rest tells this installation's keys from another's.
fn new_id(keys: &str, entropy: &dyn Entropy) -> String {
    let numbers =
        keys.split(',').filter_map(|key| key.trim().strip_prefix('k')?.split(['-', ':']).next()?.parse().ok());
    let next = numbers.max().unwrap_or(0_u32).saturating_add(1);
    let mut random = [0; 3];
    entropy.fill(&mut random);
    random.iter().fold(format!("k{next}-"), |id, byte| format!("{id}{byte:02x}"))
}

/// The database file of a data directory.
pub fn database(directory: &Path) -> PathBuf {
    directory.join("signalpost.db")
}

/// The file of keys of a data directory.
pub fn keys_file(directory: &Path) -> PathBuf {
    directory.join(KEYS)
}

/// The file that is locked by the process that owns a data directory.
pub fn lock_file(directory: &Path) -> PathBuf {
    directory.join(LOCK)
}

/// The keys of a file, where there is one.
fn read(path: &Path) -> Result<Option<Keys>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display()))?,
    }
}

fn parse(path: &Path, text: &str) -> Result<Keys, Failure> {
    toml::from_str(text).map_err(|error| Failure::setting(format!("{}: {}", path.display(), error.message())))
}

/// The keys of secrets at rest of a data directory, where it has some; makes none.
///
/// # Errors
/// The file of keys cannot be read, or is none.
pub fn encryption_keys(directory: &Path) -> Result<Option<String>, Failure> {
    Ok(read(&keys_file(directory))?.map(|keys| keys.encryption_keys).filter(|keys| !keys.is_empty()))
}

/// Of a data directory that has no keys of secrets at rest: what is wrong where its database is encrypted with some. New ones would open
/// nothing of it, and would stand where those belong that do. A database that cannot be read is told by whoever opens it.
pub fn lost_keys(directory: &Path) -> Option<String> {
    let (file, keys) = (database(directory), keys_file(directory));
    let ids = signalpost_store_sqlite::inspect(&file).ok()??.sealed.into_keys().collect::<Vec<_>>();
    if ids.is_empty() {
        return None;
    }
    let lacks = if keys.exists() { "has no encryption_keys" } else { "is missing" };
    Some(format!(
        "{} {lacks}, and secrets in {} are encrypted with `{}`: restore keys.toml from where keys are backed up, or set \
         SIGNALPOST_ENCRYPTION_KEYS",
        keys.display(),
        file.display(),
        ids.join("`, `")
    ))
}

/// The operator's key of the data directory that `dev` would use here, where there is one.
pub fn admin_key_of_default() -> Option<String> {
    let set = std::env::var_os("SIGNALPOST_DATA_DIR").filter(|path| !path.is_empty());
    let directory = set.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    let path = keys_file(&directory);
    parse(&path, &fs::read_to_string(&path).ok()?).ok().map(|keys| keys.admin_key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use signalpost_runtime::SystemEntropy;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_the_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let directory = DataDir::open(&path).unwrap();
        let key = directory.keys(&SystemEntropy).unwrap().admin_key;
        assert_eq!(key.len(), 43);
        assert_eq!(directory.keys(&SystemEntropy).unwrap().admin_key, key);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(KEYS))), (0o700, 0o600));
        drop(directory);
        assert_eq!(DataDir::open(&path).unwrap().keys(&SystemEntropy).unwrap().admin_key, key);
    }

    /// The ids of the keys of secrets at rest.
    fn ids(keys: &Keys) -> Vec<&str> {
        keys.encryption_keys.split(',').map(|key| key.split(':').next().unwrap()).collect()
    }

    #[test]
    fn a_file_of_before_gets_a_key_of_secrets_at_rest_and_keeps_the_operators() {
        let temp = tempfile::tempdir().unwrap();
        let directory = DataDir::open(temp.path()).unwrap();
        fs::write(temp.path().join(KEYS), "# Made by signalpost.\nadmin_key = \"op_of-before\"\n").unwrap();
        let keys = directory.keys(&SystemEntropy).unwrap();
        assert_eq!(keys.admin_key, "op_of-before");
        assert_eq!(KeyRing::parse(&keys.encryption_keys).unwrap().newest(), ids(&keys)[0]);
        let again = directory.keys(&SystemEntropy).unwrap();
        assert_eq!((again.admin_key, &again.encryption_keys), (keys.admin_key, &keys.encryption_keys));
        let mode = fs::metadata(temp.path().join(KEYS)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn an_operators_key_by_itself_is_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = DataDir::open(temp.path()).unwrap();
        let key = directory.admin_key(&SystemEntropy).unwrap();
        assert_eq!(directory.admin_key(&SystemEntropy).unwrap(), key);
        assert_eq!(encryption_keys(temp.path()).unwrap(), None);
        assert_eq!(directory.keys(&SystemEntropy).unwrap().admin_key, key);
        assert!(encryption_keys(temp.path()).unwrap().is_some());
    }

    #[test]
    fn a_new_key_stands_before_the_others() {
        let temp = tempfile::tempdir().unwrap();
        let directory = DataDir::open(temp.path()).unwrap();
        let first = directory.keys(&SystemEntropy).unwrap();
        let second = directory.add_encryption_key(&SystemEntropy).unwrap();
        assert!(second.encryption_keys.ends_with(&format!(",{}", first.encryption_keys)));
        assert_eq!(second.admin_key, first.admin_key);
        let third = directory.add_encryption_key(&SystemEntropy).unwrap();
        assert_eq!(directory.keys(&SystemEntropy).unwrap().encryption_keys, third.encryption_keys);
        KeyRing::parse(&third.encryption_keys).unwrap();
        assert!(ids(&third).iter().zip(["k3-", "k2-", "k1-"]).all(|(id, begins)| id.starts_with(begins)));
    }

    #[test]
    fn one_process_owns_it() {
        let temp = tempfile::tempdir().unwrap();
        let directory = DataDir::open(temp.path()).unwrap();
        let Err(Failure::Other(error)) = DataDir::open(temp.path()) else { panic!("it is in use") };
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(directory);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_broken_file_of_keys_is_a_bad_setting_and_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let directory = DataDir::open(temp.path()).unwrap();
        fs::write(temp.path().join(KEYS), "key = 1").unwrap();
        assert!(matches!(directory.keys(&SystemEntropy), Err(Failure::Setting(_))));
        assert_eq!(fs::read_to_string(temp.path().join(KEYS)).unwrap(), "key = 1");
    }
}
