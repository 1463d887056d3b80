//! The programs of the benches of both sides.
//!
//! Each side has a target directory of its own, so that neither is built anew because of the other. The programs of the base
//! are kept by their commit, those of the last one: with the same base, nothing of it is built, or checked out, again.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use cargo_metadata::{Message, MetadataCommand, TargetKind};

use crate::revision::Worktree;

const PACKAGE: &str = "signalpost-benches";

/// The programs, by the names of their targets.
pub type Programs = BTreeMap<String, PathBuf>;

/// Where everything of the comparison is kept.
pub fn folder() -> PathBuf {
    crate::target().join("bench-compare")
}

/// Those of the work tree as it is.
pub fn now() -> anyhow::Result<Programs> {
    eprintln!("building the benches of this work tree");
    build(&mut crate::cargo()).context("the benches of this work tree could not be built")
}

/// Those of a commit; none where it has no benches.
pub fn base(commit: &str) -> anyhow::Result<Programs> {
    let folder = folder();
    let kept = folder.join("programs");
    let of_commit = kept.join(commit);
    if !of_commit.is_dir() {
        eprintln!("building the benches of {commit}");
        let source = Worktree::check_out(commit, folder.join("source"))?;
        if !has_benches(source.folder())? {
            return Ok(Programs::new());
        }
        let mut cargo = crate::cargo();
        cargo.current_dir(source.folder()).env("CARGO_TARGET_DIR", folder.join("target"));
        let built = build(&mut cargo).with_context(|| format!("the benches of {commit} could not be built"))?;
        keep(&built, &kept, commit)?;
    }
    let programs = fs::read_dir(&of_commit)?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    });
    programs.collect()
}

/// Copies them to where they are found the next time, instead of those of another commit.
fn keep(built: &Programs, kept: &Path, commit: &str) -> anyhow::Result<()> {
    if kept.is_dir() {
        fs::remove_dir_all(kept)?;
    }
    let partial = kept.join("partial");
    fs::create_dir_all(&partial)?;
    for (name, program) in built {
        fs::copy(program, partial.join(name))?;
    }
    // Under its name it is complete.
    fs::rename(&partial, kept.join(commit))?;
    Ok(())
}

fn has_benches(source: &Path) -> anyhow::Result<bool> {
    let metadata = MetadataCommand::new().manifest_path(source.join("Cargo.toml")).no_deps().exec()?;
    Ok(metadata.packages.iter().any(|package| package.name.as_str() == PACKAGE))
}

fn build(cargo: &mut Command) -> anyhow::Result<Programs> {
    let mut running = cargo
        .args(["bench", "--locked", "--no-run", "--package", PACKAGE])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()?;
    let messages = running.stdout.take().context("cargo says nothing")?;
    let mut programs = Programs::new();
    for message in Message::parse_stream(BufReader::new(messages)) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(program) = artifact.executable
            && artifact.target.kind.contains(&TargetKind::Bench)
        {
            programs.insert(artifact.target.name, program.into());
        }
    }
    anyhow::ensure!(running.wait()?.success(), "cargo bench failed");
    Ok(programs)
}
