//! The real binary, as a person runs it: `dev` on a free port and in a folder of its own, and commands to their end.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use signalpost_testkit::{
    Client,
    services::{Process, free_port, process::Spec},
};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_signalpost");

/// How long anything may take on a busy machine before a test gives up.
pub const LONG: Duration = Duration::from_secs(60);

/// Allowed to send to this machine.
const STANDALONE: [(&str, &str); 2] =
    [("SIGNALPOST_EGRESS_ALLOW", "127.0.0.0/8"), ("SIGNALPOST_REQUIRE_HTTPS", "false")];

/// A running `signalpost dev` or `standalone`.
pub struct Dev {
    pub process: Process,
    pub port: u16,
    pub folder: TempDir,
    spec: Spec,
    ready: &'static str,
    starts: usize,
}

impl Dev {
    pub fn start() -> Self {
        Self::start_as("dev", "the next start finds everything again.", &[], false)
    }

    /// `standalone`, allowed to send to this machine.
    pub fn standalone() -> Self {
        Self::start_as("standalone", " is ready at ", &STANDALONE, false)
    }

    /// `standalone` with further settings.
    pub fn standalone_with(env: &[(&str, &str)]) -> Self {
        Self::start_as("standalone", " is ready at ", &[&STANDALONE, env].concat(), false)
    }

    /// `standalone`, to which [`Self::limit_files`] is an error like any other, and not its end.
    pub fn standalone_on_a_small_disk() -> Self {
        Self::start_as("standalone", " is ready at ", &STANDALONE, true)
    }

    fn start_as(command: &'static str, ready: &'static str, env: &[(&str, &str)], ignores_limits: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        // What is ignored stays so in the program that takes the shell's place.
        let spec = if ignores_limits {
            Spec::new(command, "sh", folder.path()).args(&["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", BINARY])
        } else {
            Spec::new(command, BINARY, folder.path())
        };
        let mut spec = spec.arg(command).env("SIGNALPOST_LISTEN", format!("127.0.0.1:{port}"));
        for (name, value) in env {
            spec = spec.env(name, *value);
        }
        let process = spec.start().unwrap();
        let mut dev = Self { process, port, folder, spec, ready, starts: 1 };
        dev.wait_ready();
        dev
    }

    fn wait_ready(&mut self) {
        self.process.wait_for_log(self.ready, self.starts, LONG).unwrap();
    }

    /// Starts it again, in the same folder and on the same port.
    pub fn restart(&mut self) {
        self.process = self.spec.start().unwrap();
        self.starts += 1;
        self.wait_ready();
    }

    /// From now on no file of it grows beyond that size; None: the disk has room again. Stands for a full disk where a test may not
    /// mount a small one.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let status = Command::new("prlimit")
            .arg(format!("--pid={}", self.process.id()))
            .arg(format!("--fsize={soft}:unlimited"))
            .status()
            .expect("util-linux has prlimit");
        assert!(status.success());
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap()
    }

    /// The key, from its file.
    pub fn key(&self) -> String {
        let keys = std::fs::read_to_string(self.data_dir().join("keys.toml")).unwrap();
        keys.split('"').nth(1).expect("a key between quotes").to_owned()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url(), &self.key())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("signalpost-data")
    }
}

/// A line of the greeting that begins with `curl`, taken apart as a shell does it.
#[derive(Debug)]
pub struct Curl {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

impl Curl {
    /// The lines of the last greeting in this text.
    pub fn lines(said: &str) -> Vec<Self> {
        said.lines().filter(|line| line.starts_with("curl ")).map(Self::parse).collect()
    }

    fn parse(line: &str) -> Self {
        let mut words = split(line).into_iter().skip(1);
        let mut curl = Self { method: "GET".to_owned(), url: String::new(), headers: Vec::new(), body: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "-s" => {}
                "-sw" => assert_eq!(value(), "\\n"),
                "-X" => curl.method = value(),
                "-H" => {
                    let (name, value) = value().split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
                    curl.headers.push((name, value));
                }
                "-d" => {
                    curl.body = Some(value());
                    if curl.method == "GET" {
                        "POST".clone_into(&mut curl.method);
                    }
                }
                url => url.clone_into(&mut curl.url),
            }
        }
        curl
    }

    /// Sends it; status and body.
    pub async fn send(&self) -> (u16, serde_json::Value) {
        let mut request = reqwest::Client::new().request(self.method.parse().unwrap(), &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }
}

/// Words of a shell line that knows single quotes only.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    assert!(!quoted, "an open quote in {line}");
    words.extend(word);
    words
}

/// Runs a command to its end, with that input; without settings from outside.
pub fn run(args: &[&str], env: &[(&str, &str)], input: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIGNALPOST_")) {
        command.env_remove(name);
    }
    let mut child = command
        .args(args)
        .envs(env.iter().copied())
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that ends before it has read all is none of our errors.
    let _broken_pipe = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// `signalpost send`, with address and key in the environment.
pub fn send(dev: &Dev, args: &[&str], input: &[u8]) -> Output {
    let args: Vec<_> = ["send"].iter().chain(args).copied().collect();
    run(&args, &[("SIGNALPOST_URL", &dev.url()), ("SIGNALPOST_API_KEY", &dev.key())], input)
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
