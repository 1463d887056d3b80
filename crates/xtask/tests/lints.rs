//! Every crate of ours keeps the lints of the workspace; `unsafe` is forbidden by them, so no crate can allow it to itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use cargo_metadata::MetadataCommand;
use toml::Table;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");

fn manifest(path: &str) -> Table {
    std::fs::read_to_string(path).expect("a manifest").parse().expect("TOML")
}

#[test]
fn the_workspace_forbids_unsafe_code() {
    let lints = &manifest(WORKSPACE)["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    let metadata = MetadataCommand::new().manifest_path(WORKSPACE).no_deps().exec().expect("cargo metadata");
    assert!(metadata.packages.len() > 20, "are these all of our crates?");
    for package in &metadata.packages {
        let manifest = manifest(package.manifest_path.as_str());
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{} needs `[lints] workspace = true`", package.name);
    }
}
