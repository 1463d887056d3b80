//! What `docs/security.md` says is shown by tests is: they are there, by these names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All that is written of our own code in that folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

/// What stands in backticks.
fn quoted(document: &str) -> BTreeSet<&str> {
    document.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_tests_and_files_that_it_names_are_there() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("the document");
    let mut code = String::new();
    sources(&root().join("crates"), &mut code);
    let (mut tests, mut files) = (0, 0);
    for name in quoted(&document) {
        if name.starts_with("crates/") || name.starts_with(".ci/") {
            assert!(root().join(name).exists(), "there is no {name}");
            files += 1;
        } else if name.bytes().filter(|byte| *byte == b'_').count() >= 3
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            assert!(code.contains(&format!("fn {name}(")), "there is no test {name}");
            tests += 1;
        }
    }
    assert!(tests > 10 && files > 5, "{tests} tests and {files} files: is the document still read?");
}
