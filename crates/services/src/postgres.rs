//! A PostgreSQL of our own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::Signal,
    unistd::{Gid, Uid, User, chown},
};
use tempfile::TempDir;

use crate::{
    free_port,
    process::{Process, Spec, find_program},
};

/// Files of the write-ahead log, 16 MiB each, that are made ahead: what `min_wal_size` keeps.
const LOG_FILES: u32 = 60;

/// What its log says when it can be connected to.
const READY: &str = "database system is ready to accept connections";

/// A running PostgreSQL. Stopped, and its data removed, when dropped.
#[derive(Debug)]
pub struct Postgres {
    /// The server process.
    pub process: Process,
    spec: Spec,
    port: u16,
    // Declared last: removed after the process has ended.
    _folder: TempDir,
}

impl Postgres {
    /// Makes a new database cluster and starts it. `durable`: with fsync, as a user would run it; tests do without.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start(durable: bool) -> anyhow::Result<Self> {
        let programs = programs().context("PostgreSQL is not installed (`initdb` was not found)")?;
        let folder = tempfile::Builder::new().prefix("signalpost-postgres-").tempdir()?;
        let user = unprivileged_user()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let data = folder.path().join("data");
        let mut initdb =
            Spec::new("initdb", programs.join("initdb"), folder.path()).arg("--pgdata").arg(&data).args(&[
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]);
        initdb.user = user;
        initdb.run()?;
        let port = free_port()?;
        let mut spec = Spec::new("postgres", programs.join("postgres"), folder.path()).arg("-D").arg(&data);
        let socket_folder = format!("unix_socket_directories={}", folder.path().display());
        let mut settings = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            socket_folder,
            "max_connections=200".to_owned(),
            "shared_buffers=256MB".to_owned(),
            "max_wal_size=2GB".to_owned(),
            // See `age_log`.
            "min_wal_size=1GB".to_owned(),
        ];
        if !durable {
            settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
        }
        for setting in settings {
            spec = spec.arg("-c").arg(setting);
        }
        spec.user = user;
        // Fast shutdown: sessions are cut, nothing is lost.
        spec.stop_signal = Signal::SIGINT;
        let process = spec.start()?;
        let mut postgres = Self { process, spec, port, _folder: folder };
        postgres.wait_ready(0)?;
        Ok(postgres)
    }

    fn wait_ready(&mut self, starts_before: usize) -> anyhow::Result<()> {
        self.process.wait_for_log(READY, starts_before + 1, Duration::from_secs(30))
    }

    /// Address of the superuser's database.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// Address of a database.
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements in a database, all or none.
    ///
    /// # Errors
    /// One of them fails, or `psql` is not installed.
    pub fn run_sql(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix("signalpost-sql-").tempdir()?;
        let file = folder.path().join("statements.sql");
        std::fs::write(&file, sql)?;
        client("psql", folder.path())?
            .args(&["--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1"])
            .arg(format!("--dbname={}", self.database_url(database)))
            .arg("--file")
            .arg(&file)
            .run()
    }

    /// Gives it the write-ahead log of a database that is in use: files that are used again. A new one is filled with zeros first (some
    /// 20 ms for 16 MiB), and all that commit wait for it. Takes a second or two, and up to 1 GiB of disk.
    ///
    /// # Errors
    /// `psql` is not installed, or fails.
    pub fn age_log(&self) -> anyhow::Result<()> {
        // A file that nothing was written to is not switched. A checkpoint keeps what `min_wal_size` allows.
        let sql = format!(
            "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal() FROM generate_series(1, {LOG_FILES});\nCHECKPOINT;\n"
        );
        self.run_sql("postgres", &sql)
    }

    /// What `pg_dump` says of a database, with these further arguments.
    ///
    /// # Errors
    /// It fails, or is not installed.
    pub fn dump(&self, database: &str, args: &[&str]) -> anyhow::Result<String> {
        let folder = tempfile::Builder::new().prefix("signalpost-dump-").tempdir()?;
        let file = folder.path().join("dump.sql");
        client("pg_dump", folder.path())?
            .args(args)
            .arg(format!("--dbname={}", self.database_url(database)))
            .arg("--file")
            .arg(&file)
            .run()?;
        Ok(std::fs::read_to_string(file)?)
    }

    /// Stops the server; its data stays.
    ///
    /// # Errors
    /// It does not stop.
    pub fn halt(&mut self) -> anyhow::Result<()> {
        self.process.stop(Duration::from_secs(20)).map(drop)
    }

    /// Ends it at once, as a crash would (SIGQUIT, "immediate"): the next start recovers from its log. Its data stays.
    ///
    /// # Errors
    /// It cannot be signalled, or waited for.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGQUIT)?;
        self.process.wait(Duration::from_secs(20)).map(drop)
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let starts = self.process.log_count(READY);
        self.process = self.spec.start()?;
        self.wait_ready(starts)
    }
}

/// A client program: beside the server's, or in `PATH`.
fn client(name: &str, folder: &Path) -> anyhow::Result<Spec> {
    let beside = programs().map(|programs| programs.join(name)).filter(|file| file.is_file());
    let program =
        beside.or_else(|| find_program(name)).with_context(|| format!("`{name}` of PostgreSQL is not installed"))?;
    Ok(Spec::new(name, program, folder))
}

/// The folder with `initdb` and `postgres`: in `PATH`, or where Debian puts it (the newest version).
pub fn programs() -> Option<PathBuf> {
    if let Some(initdb) = find_program("initdb") {
        return initdb.parent().map(PathBuf::from);
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, folder)| folder)
}

/// PostgreSQL refuses to run as root: whom it runs as instead.
fn unprivileged_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some((user.uid.as_raw(), user.gid.as_raw())));
        }
    }
    anyhow::bail!("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
}
