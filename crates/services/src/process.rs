//! One child process: started with its output in a file, watched, signalled, stopped.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A running (or ended) child. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    stop_signal: Signal,
}

/// How a child is started; the same spec can be started again.
#[derive(Debug, Clone)]
pub struct Spec {
    /// For messages and the name of its log file.
    pub name: String,
    /// What runs.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to our environment.
    pub env: Vec<(String, String)>,
    /// Where it runs, and where its log file is.
    pub folder: PathBuf,
    /// As whom, where that is not us: user and group.
    pub user: Option<(u32, u32)>,
    /// What asks it to stop.
    pub stop_signal: Signal,
}

impl Spec {
    /// A program in a folder, stopped with SIGTERM.
    pub fn new(name: &str, program: impl AsRef<OsStr>, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            folder: folder.to_owned(),
            user: None,
            stop_signal: Signal::SIGTERM,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it. Its output is appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self) -> anyhow::Result<Process> {
        let log = self.folder.join(format!("{}.log", self.name));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Process { name: self.name.clone(), child, log, stop_signal: self.stop_signal })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails; with the end of what it said.
    pub fn run(&self) -> anyhow::Result<()> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            bail!("{} failed ({}): {}", self.name, output.status, tail(&said, 20));
        }
        Ok(())
    }

    fn command(&self) -> Command {
        // `setpriv` (util-linux) ends the child with its parent, even when that is killed, and changes the user.
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                if let Some((user, group)) = self.user {
                    command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
                }
                command.arg(format!("--pdeathsig={}", signal_name(self.stop_signal))).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.folder);
        command
    }
}

fn signal_name(signal: Signal) -> &'static str {
    signal.as_str().trim_start_matches("SIG")
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended and been waited for.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Freezes it (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        let _ended_already = self.child.kill();
        Ok(self.child.wait()?)
    }

    /// Asks it to stop and waits; kills it where it does not within `deadline`.
    ///
    /// # Errors
    /// It did not stop by itself.
    pub fn stop(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        if self.is_running() {
            self.signal(self.stop_signal)?;
        }
        self.wait(deadline)
    }

    /// Waits for its end; kills it where that does not come within `deadline`.
    ///
    /// # Errors
    /// It did not end by itself.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let until = now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if now() > until {
                self.kill()?;
                bail!("{} did not stop within {deadline:?}; its log ends:\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until `ready` is true.
    ///
    /// # Errors
    /// The process ended, or the deadline passed; with the end of its log.
    pub fn wait_until(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let until = now() + deadline;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it was ready; its log ends:\n{}", self.name, self.log_tail());
            }
            if now() > until {
                bail!("{} was not ready within {deadline:?}; its log ends:\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until its log holds a text that many times (the log outlives a restart).
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub fn wait_for_log(&mut self, text: &str, times: usize, deadline: Duration) -> anyhow::Result<()> {
        let log = self.log.clone();
        self.wait_until(deadline, || occurrences(&log, text) >= times)
    }

    /// How often its log holds a text.
    pub fn log_count(&self, text: &str) -> usize {
        occurrences(&self.log, text)
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub fn wait_for_port(&mut self, port: u16, deadline: Duration) -> anyhow::Result<()> {
        self.wait_until(deadline, || port_answers(port))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 30)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _best_effort = self.thaw();
            if self.stop(Duration::from_secs(5)).is_err() {
                let _killed = self.kill();
            }
        }
    }
}

/// Whether something accepts connections on that port of 127.0.0.1.
pub fn port_answers(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_millis(200)).is_ok()
}

/// Where a program is in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn occurrences(log: &Path, text: &str) -> usize {
    std::fs::read_to_string(log).map_or(0, |log| log.matches(text).count())
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[allow(clippy::disallowed_methods, reason = "real processes take real time")]
fn now() -> Instant {
    Instant::now()
}
