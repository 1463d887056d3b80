//! Other revisions, checked out beside this one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// The short id of the commit that a revision names.
///
/// # Errors
/// It names none.
pub fn commit(revision: &str) -> anyhow::Result<String> {
    git(&["rev-parse", "--short=12", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")])
        .with_context(|| format!("there is no commit `{revision}` in this repository"))
}

/// Checks a commit out into a folder, which stays.
///
/// # Errors
/// git cannot.
pub fn check_out(commit: &str, folder: &Path) -> anyhow::Result<()> {
    // One that was removed by hand is still registered.
    git(&["worktree", "prune"])?;
    git(&["worktree", "add", "--detach", "--force", path(folder)?, commit])?;
    Ok(())
}

/// A commit in a folder that goes when this is dropped.
pub struct Worktree(PathBuf);

impl Worktree {
    /// Checks it out; what an interrupted run left in the folder goes.
    ///
    /// # Errors
    /// git cannot.
    pub fn check_out(commit: &str, folder: PathBuf) -> anyhow::Result<Self> {
        let worktree = Self(folder);
        worktree.remove();
        check_out(commit, &worktree.0)?;
        Ok(worktree)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn remove(&self) {
        let _gone = std::fs::remove_dir_all(&self.0);
        let _forgotten = git(&["worktree", "prune"]);
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").current_dir(crate::root()).args(args).output().context("cannot run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "git {}: {}", args.join(" "), said.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
