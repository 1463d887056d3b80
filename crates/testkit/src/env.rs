//! Where the services for tests are: `cargo xtask test` starts them and says so in the environment.

use std::path::PathBuf;

fn given(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which starts what tests need"))
}

/// A PostgreSQL, by the URL of a superuser. Tests make databases of their own in it.
pub fn database_url() -> String {
    given("SIGNALPOST_TEST_DATABASE_URL")
}

/// A Redis.
pub fn redis_url() -> String {
    given("SIGNALPOST_TEST_REDIS_URL")
}

/// A Kafka.
pub fn kafka_brokers() -> String {
    given("SIGNALPOST_TEST_KAFKA_BROKERS")
}

/// Where the jars of Kafka are kept, for tests that start a broker of their own.
pub fn services_cache() -> PathBuf {
    PathBuf::from(given("SIGNALPOST_TEST_SERVICES_CACHE"))
}

/// Whether the long suites shall run, too.
pub fn long() -> bool {
    std::env::var_os("SIGNALPOST_TEST_LONG").is_some()
}

/// The folder with our binaries: where the running test program was built to.
pub fn binaries() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the running program");
    let folder = program.parent().and_then(|deps| deps.parent()).expect("a folder of builds");
    folder.to_owned()
}
