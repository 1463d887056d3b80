//! The boundaries between crates, held over `cargo metadata` (docs/architecture.md, "Boundaries").

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every crate of ours, with the names of all that it depends on, directly or not, in a build without tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .exec()
        .expect("cargo metadata");
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    let edges: BTreeMap<_, Vec<_>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            (node.id.clone(), normal.map(|dependency| dependency.pkg.clone()).collect())
        })
        .collect();
    metadata
        .workspace_packages()
        .iter()
        .map(|package| {
            let mut reached = BTreeSet::new();
            let mut left = vec![package.id.clone()];
            while let Some(id) = left.pop() {
                for next in &edges[&id] {
                    if reached.insert(next.clone()) {
                        left.push(next.clone());
                    }
                }
            }
            (package.name.to_string(), reached.iter().map(name).collect())
        })
        .collect()
}

fn assert_free_of(crates: &[&str], banned: &[&str]) {
    let dependencies = dependencies();
    for of in crates {
        let reached = dependencies.get(*of).unwrap_or_else(|| panic!("there is no crate {of}"));
        assert!(!reached.is_empty(), "{of} depends on nothing at all: is the graph resolved?");
        for name in banned {
            assert!(!reached.contains(*name), "{of} depends on {name}");
        }
    }
}

#[test]
fn core_depends_on_no_io() {
    assert_free_of(
        &["signalpost-core"],
        &["tokio", "hyper", "axum", "sqlx", "rusqlite", "rdkafka", "redis", "reqwest", "rand", "mio", "socket2"],
    );
}

#[test]
fn services_see_only_ports() {
    let backends = [
        "sqlx",
        "sqlx-core",
        "rusqlite",
        "rdkafka",
        "redis",
        "signalpost-store-postgres",
        "signalpost-store-sqlite",
        "signalpost-bus-kafka",
        "signalpost-bus-local",
        "signalpost-limits-redis",
    ];
    assert_free_of(&["signalpost-api", "signalpost-dispatcher", "signalpost-retry"], &backends);
    assert_free_of(&["signalpost-api"], &["signalpost-dispatcher", "signalpost-retry"]);
    assert_free_of(&["signalpost-dispatcher"], &["signalpost-api", "signalpost-retry"]);
    assert_free_of(&["signalpost-retry"], &["signalpost-api", "signalpost-dispatcher", "signalpost-sender"]);
}

#[test]
fn only_the_sender_can_open_connections_to_destinations() {
    let clients = ["hyper-rustls", "reqwest", "rustls"];
    let direct = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    for package in direct.packages.iter().filter(|package| {
        ["signalpost-api", "signalpost-dispatcher", "signalpost-retry"].contains(&package.name.as_str())
    }) {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            assert!(
                !clients.contains(&dependency.name.as_str()),
                "{} has the client {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn only_stores_contain_sql() {
    let dependencies = dependencies();
    for (name, reached) in &dependencies {
        // The simulation runs the SQLite store's own code, and asks it what it wants to know.
        let wires =
            ["signalpost", "signalpost-cluster", "signalpost-testkit", "signalpost-loadtest", "signalpost-simulation"]
                .contains(&name.as_str());
        if wires || name.starts_with("signalpost-store-") {
            continue;
        }
        for driver in ["sqlx", "rusqlite"] {
            assert!(!reached.contains(driver), "{name} reaches {driver}");
        }
    }
}

#[test]
fn plain_cargo_run_finds_the_operators_binary_without_a_cluster() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .exec()
        .expect("cargo metadata");
    let defaults: Vec<_> =
        metadata.workspace_default_packages().iter().map(|package| package.name.to_string()).collect();
    assert_eq!(defaults, ["signalpost"]);
    assert_free_of(&["signalpost"], &["rdkafka", "redis", "sqlx-postgres"]);
}
