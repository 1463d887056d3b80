//! This machine: clock, file descriptors, data directory, port.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit},
    statvfs::statvfs,
};
use signalpost_config::Settings;
use signalpost_core::{Clock as _, Timestamp};
use signalpost_runtime::SystemClock;
use signalpost_wiring::Finding;

use crate::{data_dir, terminal::short};

/// No clock of a machine that runs this is before this version was made.
const MADE: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Connections besides those to destinations: producers, database, idle ones.
const OTHER_FILES: u64 = 512;

const LEAST_FREE: u64 = 1024 * 1024 * 1024;

/// A commit waits for one of these.
const SLOW_SYNC: Duration = Duration::from_millis(50);

/// Ids and signatures carry the time; receivers refuse signatures that are five minutes off.
pub fn clock() -> Finding {
    let now = SystemClock::new().now();
    if now < MADE {
        let remedy = "set it, and keep it right with NTP (systemctl enable --now systemd-timesyncd, or chrony)";
        return Finding::bad("clock", format!("it is {now}, which cannot be"), remedy);
    }
    Finding::good("clock", format!("{now}; receivers refuse what is 5 minutes off, so keep it right with NTP"))
}

/// One per connection.
pub fn files(settings: &Settings) -> Finding {
    const WHAT: &str = "file descriptors";
    let wanted = settings.service.max_connections.get() as u64;
    let needed = settings.delivery.max_in_flight.get() as u64 + OTHER_FILES;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        // The soft limit is raised to the hard one at start.
        Ok((_, hard)) if hard >= needed && hard / 4 * 3 < wanted => Finding::note(
            WHAT,
            format!(
                "up to {hard}; {} connections are taken at once, not the {wanted} of SIGNALPOST_MAX_CONNECTIONS: raise the limit \
                 to {} (ulimit -Hn; LimitNOFILE in systemd), or lower the setting",
                hard / 4 * 3,
                wanted.div_ceil(3) * 4
            ),
        ),
        Ok((_, hard)) if hard >= needed => {
            let seen = if hard > 1 << 30 { "no limit".to_owned() } else { format!("up to {hard}") };
            Finding::good(WHAT, format!("{seen}; {needed} are needed"))
        }
        Ok((_, hard)) => Finding::bad(
            WHAT,
            format!("at most {hard}, {needed} are needed"),
            "raise the limit (ulimit -Hn 65536; LimitNOFILE=65536 in systemd), or lower SIGNALPOST_MAX_IN_FLIGHT",
        ),
        Err(error) => Finding::note(WHAT, format!("the limit cannot be read: {error}")),
    }
}

/// What `dev` and `standalone` need; a running one explains why both are taken.
pub async fn data_dir_and_port(settings: &Settings) -> Vec<Finding> {
    let (path, listen) = (&settings.storage.data_dir, settings.service.listen);
    let mut findings = writable(path);
    let running = is_locked(path);
    if running {
        findings.push(Finding::good("data directory", format!("{} is in use by a running Signalpost", path.display())));
    }
    findings.push(port(listen, running));
    findings
}

fn writable(path: &Path) -> Vec<Finding> {
    const WHAT: &str = "data directory";
    // Before the first start the directory is not there: then its parent counts.
    let Some(existing) =
        path.ancestors().find(|ancestor| ancestor.as_os_str().is_empty() || ancestor.exists()).map(or_here)
    else {
        return vec![Finding::bad(WHAT, format!("{} cannot be made", path.display()), "set SIGNALPOST_DATA_DIR")];
    };
    let mut findings = Vec::new();
    findings.push(match sync_time(existing) {
        Ok(took) if took > SLOW_SYNC => Finding::note(
            WHAT,
            format!("{} is writable, but one fsync took {}: each commit waits for one", path.display(), short(took)),
        ),
        Ok(took) => {
            let not_yet = if path.exists() { "" } else { " (made at the first start)" };
            Finding::good(WHAT, format!("{}{not_yet} is writable; one fsync took {}", path.display(), short(took)))
        }
        Err(error) => Finding::bad(
            WHAT,
            format!("{} cannot be written: {error}", existing.display()),
            format!("let this user write there (chown, chmod), or set SIGNALPOST_DATA_DIR; it is {}", path.display()),
        ),
    });
    findings.push(free_space(existing));
    findings.extend(private_keys(path));
    findings.extend(database(path));
    findings
}

/// Nothing before the first start, which makes it.
fn database(directory: &Path) -> Option<Finding> {
    const WHAT: &str = "database";
    let file = data_dir::database(directory);
    if !file.exists() {
        return None;
    }
    let shown = file.display();
    // Its companions are there while it is open, and after a process that did not stop in order.
    let parts = ["", "-wal", "-shm", ".lock"].map(|ending| directory.join(format!("signalpost.db{ending}")));
    for part in parts.iter().chain([&data_dir::lock_file(directory)]).filter(|part| part.exists()) {
        if let Err(error) = File::options().write(true).open(part) {
            let remedy = "let this user write it (chown, chmod), and all that stands beside it";
            return Some(Finding::bad(WHAT, format!("{} cannot be written: {error}", part.display()), remedy));
        }
    }
    Some(match signalpost_store_sqlite::inspect(&file) {
        Ok(_) => Finding::good(WHAT, format!("{shown} can be read and written")),
        Err(error) => {
            let remedy = "restore it from a backup, or set SIGNALPOST_DATA_DIR to another directory";
            Finding::bad(WHAT, format!("{shown} cannot be read: {error}"), remedy)
        }
    })
}

fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Writes a file as a commit does, and removes it.
fn sync_time(directory: &Path) -> io::Result<Duration> {
    let probe = directory.join(format!(".signalpost-doctor-{}", std::process::id()));
    let clock = SystemClock::new();
    let written = File::create(&probe).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        let began = clock.elapsed();
        file.sync_data()?;
        Ok(clock.elapsed().saturating_sub(began))
    });
    let removed = fs::remove_file(&probe);
    written.and_then(|took| removed.map(|()| took))
}

fn free_space(directory: &Path) -> Finding {
    const WHAT: &str = "free space";
    match statvfs(directory) {
        Ok(disk) => {
            #[allow(clippy::useless_conversion, reason = "32 bits on some systems")]
            let free = u64::from(disk.blocks_available()).saturating_mul(disk.fragment_size());
            let shown = format!("{:.1} GiB", free as f64 / LEAST_FREE as f64);
            if free < LEAST_FREE {
                let remedy =
                    "free some, or set SIGNALPOST_DATA_DIR to a larger disk, or lower SIGNALPOST_RETENTION_DAYS";
                Finding::bad(WHAT, format!("{shown} left; nothing is accepted on a full disk"), remedy)
            } else {
                Finding::good(WHAT, shown)
            }
        }
        Err(error) => Finding::note(WHAT, format!("cannot be told: {error}")),
    }
}

fn private_keys(path: &Path) -> Option<Finding> {
    let keys = data_dir::keys_file(path);
    let mode = fs::metadata(&keys).ok()?.permissions().mode() & 0o777;
    Some(if mode & 0o077 == 0 {
        Finding::good("operator's key", format!("in {}, for its owner alone", keys.display()))
    } else {
        let problem = format!("{} can be read by others (mode {mode:o})", keys.display());
        Finding::bad("operator's key", problem, format!("chmod 600 {}", keys.display()))
    })
}

/// Only looks, so that no directory is made and nothing is held.
fn is_locked(path: &Path) -> bool {
    File::open(data_dir::lock_file(path))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn port(listen: SocketAddr, running: bool) -> Finding {
    const WHAT: &str = "port";
    match TcpListener::bind(listen) {
        Ok(_) => Finding::good(WHAT, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            Finding::good(WHAT, format!("{listen} is in use, by the running Signalpost as it seems"))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let remedy =
                "stop what listens there (ss -ltnp shows it), or give another address (--listen, SIGNALPOST_LISTEN)";
            Finding::bad(WHAT, format!("{listen} is in use"), remedy)
        }
        Err(error) => Finding::bad(
            WHAT,
            format!("cannot listen on {listen}: {error}"),
            "give another address (--listen, SIGNALPOST_LISTEN)",
        ),
    }
}
