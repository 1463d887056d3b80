//! The documentation of settings is the declarations' own.

use signalpost_config::docs;
use signalpost_telemetry::generated::check;

fn at_root(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

#[test]
fn the_generated_page_is_up_to_date() {
    check(at_root("docs/configuration.md"), &docs::page()).unwrap();
}

#[test]
fn the_generated_example_is_up_to_date() {
    check(at_root(".env.example"), &docs::example()).unwrap();
}
