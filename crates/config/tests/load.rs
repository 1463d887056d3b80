//! What is read from where, and what stops the start.

use std::{fs, time::Duration};

use signalpost_config::{ConfigError, Kind, Settings, load_from, setting::Fallback, settings};

fn load(kind: Kind, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    load_from(kind, None, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn error(environment: &[(&str, &str)]) -> String {
    let Err(error) = load(Kind::Standalone, environment) else { panic!("{environment:?} was accepted") };
    let line = error.to_string();
    assert!(!line.contains('\n'), "one line: {line}");
    line
}

const CLUSTER: &[(&str, &str)] = &[
    ("SIGNALPOST_DATABASE_URL", "postgres://u:p4ssw0rd@db/signalpost"),
    ("SIGNALPOST_REDIS_URL", "redis://redis:6379"),
    ("SIGNALPOST_KAFKA_BROKERS", "kafka:9092"),
    ("SIGNALPOST_ADMIN_KEY", "0123456789abcdef,fedcba9876543210"),
    ("SIGNALPOST_ENCRYPTION_KEYS", "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
];

#[test]
fn kinds_differ_in_their_defaults() {
    for (kind, listen, https, egress) in [
        (Kind::Dev, "127.0.0.1:8080", false, 2),
        (Kind::Standalone, "127.0.0.1:8080", true, 0),
        (Kind::Api, "0.0.0.0:8080", true, 0),
        (Kind::Dispatcher, "0.0.0.0:8081", true, 0),
        (Kind::Retry, "0.0.0.0:8082", true, 0),
    ] {
        let settings = load(kind, CLUSTER).unwrap();
        assert_eq!(settings.service.listen.to_string(), listen, "{kind}");
        assert_eq!(settings.delivery.require_https, https, "{kind}");
        assert_eq!(settings.delivery.egress_allow.len(), egress, "{kind}");
    }
    let settings = load(Kind::Standalone, &[]).unwrap();
    assert_eq!(settings.retention.events, Duration::from_secs(30 * 86_400));
    assert_eq!(settings.ingest.idempotency, Duration::from_secs(86_400));
    assert_eq!(settings.storage.data_dir.to_str(), Some("./signalpost-data"));
}

#[test]
fn every_default_and_example_can_be_read() {
    for setting in settings::all() {
        let mut environment = CLUSTER.to_vec();
        let variable = setting.variable();
        environment.retain(|(name, _)| *name != variable);
        environment.push((&variable, setting.example));
        load(Kind::Api, &environment).unwrap_or_else(|error| panic!("{error}"));
        assert!(!setting.help.trim().is_empty() && setting.help.trim().ends_with('.'), "{}", setting.name);
        assert!(!(setting.secret && matches!(setting.default, Fallback::Text(_))), "{}", setting.name);
    }
    for kind in [Kind::Dev, Kind::Standalone, Kind::Tool] {
        load(kind, &[]).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn an_unknown_variable_is_named_with_what_may_have_been_meant() {
    assert_eq!(
        error(&[("SIGNALPOST_RETENTION_DAY", "3")]),
        "SIGNALPOST_RETENTION_DAY is not a setting; did you mean SIGNALPOST_RETENTION_DAYS?"
    );
    assert_eq!(error(&[("SIGNALPOST_QUUX", "3")]), "SIGNALPOST_QUUX is not a setting");
    assert_eq!(
        error(&[("SIGNALPOST_KAFKA_BROKER", "k:9092")]),
        "SIGNALPOST_KAFKA_BROKER is not a setting; did you mean SIGNALPOST_KAFKA_BROKERS?"
    );
    // Only secrets come from files.
    assert!(error(&[("SIGNALPOST_LISTEN_FILE", "x")]).starts_with("SIGNALPOST_LISTEN_FILE is not a setting"));
}

#[test]
fn what_is_no_setting_of_a_person_is_left_alone() {
    load(
        Kind::Standalone,
        &[
            ("PATH", "/bin"),
            ("SIGNALPOST_TEST_DATABASE_URL", "x"),
            ("SIGNALPOST_REGENERATE", "1"),
            ("SIGNALPOST_URL", "http://127.0.0.1:8080"),
            ("SIGNALPOST_SIGN_SECRET", "whsec_x"),
            ("SIGNALPOST_SIGN_SCHEME", "standard"),
            // What Kubernetes sets for services called `signalpost` and `signalpost-api`.
            ("SIGNALPOST_SERVICE_HOST", "10.0.0.1"),
            ("SIGNALPOST_SERVICE_PORT", "8080"),
            ("SIGNALPOST_SERVICE_PORT_HTTP", "8080"),
            ("SIGNALPOST_PORT", "tcp://10.0.0.1:8080"),
            ("SIGNALPOST_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("SIGNALPOST_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("SIGNALPOST_API_SERVICE_HOST", "10.0.0.2"),
            ("SIGNALPOST_API_PORT", "tcp://10.0.0.2:8080"),
        ],
    )
    .unwrap();
}

#[test]
fn an_impossible_value_is_named_with_what_is_possible() {
    for (name, value, line) in [
        (
            "SIGNALPOST_LISTEN",
            "8080",
            "SIGNALPOST_LISTEN (`8080`) must be an IP address and a port, e.g. 127.0.0.1:8080",
        ),
        ("SIGNALPOST_RETENTION_DAYS", "0", "SIGNALPOST_RETENTION_DAYS (`0`) must be a number from 1 to 3650 (days)"),
        (
            "SIGNALPOST_KAFKA_PARTITIONS",
            "1.5",
            "SIGNALPOST_KAFKA_PARTITIONS (`1.5`) must be a whole number from 1 to 10000 (partitions)",
        ),
        (
            "SIGNALPOST_MAX_IN_FLIGHT",
            "many\nof them",
            "SIGNALPOST_MAX_IN_FLIGHT (`many\\nof them`) must be a whole number from 1 to 100000 (requests)",
        ),
        ("SIGNALPOST_REQUIRE_HTTPS", "maybe", "SIGNALPOST_REQUIRE_HTTPS (`maybe`) must be true or false"),
        (
            "SIGNALPOST_OTLP_ENDPOINT",
            "collector:4318",
            "SIGNALPOST_OTLP_ENDPOINT (`collector:4318`) must be a URL with a host that begins with http:// or https://",
        ),
    ] {
        assert_eq!(error(&[(name, value)]), line);
    }
    assert!(error(&[("SIGNALPOST_EGRESS_ALLOW", "10.0.0.0/8,here")]).contains("`here`"));
    assert!(error(&[("SIGNALPOST_EGRESS_DENY_PORTS", "22,70000")]).contains("`70000`"));
    let proxy = error(&[("SIGNALPOST_EGRESS_PROXY", "socks5://joe:p4ssw0rd@proxy")]);
    assert!(proxy.contains("http://") && !proxy.contains("p4ssw0rd"), "{proxy}");
    assert!(error(&[("SIGNALPOST_TRACE_SAMPLE_RATIO", "NaN")]).contains("from 0 to 1"));
}

#[test]
fn a_secret_is_never_shown() {
    for (name, value) in [
        ("SIGNALPOST_ADMIN_KEY", "short-secret"),
        ("SIGNALPOST_DATABASE_URL", "mysql://u:hunter22@db/x"),
        ("SIGNALPOST_REDIS_URL", "hunter22"),
    ] {
        let line = error(&[(name, value)]);
        assert!(line.starts_with(name), "{line}");
        assert!(!line.contains(value) && !line.contains("hunter22"), "{line}");
    }
    let mut environment = CLUSTER.to_vec();
    environment.push(("SIGNALPOST_KAFKA_SASL_PASSWORD", "hunter22"));
    let shown = format!("{:?}", load(Kind::Api, &environment).unwrap());
    for secret in ["p4ssw0rd", "0123456789abcdef", "hunter22", "MDEyMzQ1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn what_a_kind_needs_must_be_set() {
    for missing in [
        "SIGNALPOST_DATABASE_URL",
        "SIGNALPOST_REDIS_URL",
        "SIGNALPOST_KAFKA_BROKERS",
        "SIGNALPOST_ADMIN_KEY",
        "SIGNALPOST_ENCRYPTION_KEYS",
    ] {
        let rest = CLUSTER.iter().copied().filter(|(name, _)| *name != missing).collect::<Vec<_>>();
        let line = load(Kind::Api, &rest).expect_err("something is missing").to_string();
        assert!(line.starts_with(&format!("{missing} is not set; api needs it, e.g. {missing}=")), "{line}");
    }
    // An empty variable is none: compose files write `${X:-}`.
    let mut environment = CLUSTER.to_vec();
    environment.push(("SIGNALPOST_REDIS_URL", ""));
    assert!(matches!(load(Kind::Dispatcher, &environment), Err(ConfigError::Missing { name: "REDIS_URL", .. })));
    load(Kind::Retry, &environment).unwrap();
    assert!(load(Kind::Tool, &[]).unwrap().database_url().is_err());
}

#[test]
fn an_empty_list_replaces_the_default() {
    let settings = load(Kind::Dev, &[("SIGNALPOST_EGRESS_ALLOW", "")]).unwrap();
    assert_eq!(settings.delivery.egress_allow, []);
}

#[test]
fn an_empty_variable_hides_nothing_of_the_file_but_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signalpost.toml");
    fs::write(
        &file,
        "admin_key = \"0123456789abcdef\"\nretention_days = 7\negress_allow = [\"10.0.0.0/8\"]\n\
         [kafka]\n\"security.protocol\" = \"SASL_SSL\"\n",
    )
    .unwrap();
    let load = |environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_from(Kind::Standalone, Some(&file), environment)
    };
    for environment in [
        &[("SIGNALPOST_ADMIN_KEY", "")][..],
        &[("SIGNALPOST_ADMIN_KEY", " \n")],
        &[("SIGNALPOST_ADMIN_KEY_FILE", "")],
        &[("SIGNALPOST_ADMIN_KEY", ""), ("SIGNALPOST_ADMIN_KEY_FILE", "")],
        &[("SIGNALPOST_RETENTION_DAYS", ""), ("SIGNALPOST_KAFKA_SECURITY_PROTOCOL", "")],
        &[("SIGNALPOST_KAFKA_SASL_PASSWORD_FILE", "")],
    ] {
        let settings = load(environment).unwrap_or_else(|error| panic!("{environment:?}: {error}"));
        assert_eq!(settings.service.admin_keys.reveal(), ["0123456789abcdef"], "{environment:?}");
        assert_eq!(settings.retention.events, Duration::from_secs(7 * 86_400), "{environment:?}");
        assert_eq!(settings.kafka_properties.iter().collect::<Vec<_>>(), [("security.protocol", "SASL_SSL")]);
        assert_eq!(settings.delivery.egress_allow.len(), 1);
    }
    assert_eq!(load(&[("SIGNALPOST_EGRESS_ALLOW", "")]).unwrap().delivery.egress_allow, []);
    // One way of the two that is empty does not stand in the way of the other.
    let key = folder.path().join("key");
    fs::write(&key, "fedcba9876543210\n").unwrap();
    let by_file = [("SIGNALPOST_ADMIN_KEY", ""), ("SIGNALPOST_ADMIN_KEY_FILE", key.to_str().unwrap())];
    assert_eq!(load(&by_file).unwrap().service.admin_keys.reveal(), ["fedcba9876543210"]);
    // A name that nobody knows is told all the same: it may be a list that was to be emptied.
    let line = load(&[("SIGNALPOST_EGRESS_ALOW", "")]).expect_err("no setting").to_string();
    assert_eq!(line, "SIGNALPOST_EGRESS_ALOW is not a setting; did you mean SIGNALPOST_EGRESS_ALLOW?");
}

#[test]
fn a_word_of_the_log_filter_that_is_no_level_is_refused() {
    for good in
        ["info", "OFF", "3", "info,signalpost_dispatcher=debug", "signalpost=trace, warn", "[ingest{a,b}]=debug"]
    {
        assert_eq!(
            load(Kind::Api, &[CLUSTER, &[("SIGNALPOST_LOG", good)]].concat()).unwrap().telemetry.log.as_str(),
            good
        );
    }
    for (filter, word) in
        [("inffo", "inffo"), ("signalpost=debug,wran", "wran"), ("debug;info", "debug;info"), ("6", "6")]
    {
        let line = error(&[("SIGNALPOST_LOG", filter)]);
        assert!(line.starts_with(&format!("SIGNALPOST_LOG (`{filter}`) has `{word}`, which is no level")), "{line}");
    }
}

#[test]
fn what_deliveries_go_through_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signalpost.toml");
    let proxy = folder.path().join("proxy");
    fs::write(&proxy, "http://joe:p4ssw0rd@proxy:3128\n").unwrap();
    fs::write(&file, "egress_deny_ports = [22, 25]\negress_ca_file = \"/etc/ca.pem\"\n").unwrap();
    let environment = [("SIGNALPOST_EGRESS_PROXY_FILE".to_owned(), proxy.to_str().unwrap().to_owned())];
    let delivery = load_from(Kind::Standalone, Some(&file), environment).unwrap().delivery;
    assert_eq!(delivery.egress_deny_ports, [22, 25]);
    assert_eq!(delivery.egress_proxy.as_ref().unwrap().reveal(), "http://joe:p4ssw0rd@proxy:3128");
    // No file of a secret: the setting is the path.
    assert_eq!(delivery.egress_ca_file.as_deref().unwrap().to_str(), Some("/etc/ca.pem"));
    assert!(!format!("{delivery:?}").contains("p4ssw0rd"));
    let none = load(Kind::Standalone, &[("SIGNALPOST_EGRESS_DENY_PORTS", "")]).unwrap().delivery;
    assert_eq!(none.egress_deny_ports, [0_u16; 0]);
}

#[test]
fn properties_of_kafka_are_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "hunter22\n").unwrap();
    let settings = load(
        Kind::Standalone,
        &[
            ("SIGNALPOST_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("SIGNALPOST_KAFKA_SASL_PASSWORD_FILE", password.to_str().unwrap()),
            ("SIGNALPOST_KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE", "/key"),
        ],
    )
    .unwrap();
    assert_eq!(
        settings.kafka_properties.iter().collect::<Vec<_>>(),
        [
            ("sasl.oauthbearer.assertion.private.key.file", "/key"),
            ("sasl.password", "hunter22"),
            ("security.protocol", "SASL_SSL"),
        ]
    );
    assert!(error(&[("SIGNALPOST_KAFKA_ENABLE_AUTO_COMMIT", "true")]).contains("`enable.auto.commit`"));
}

#[test]
fn the_environment_stands_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signalpost.toml");
    let key = folder.path().join("key");
    fs::write(&key, "0123456789abcdef\n").unwrap();
    fs::write(
        &file,
        format!(
            "retention_days = 7\ndead_letter_retention_days = 8.5\negress_allow = [\"10.0.0.0/8\"]\n\
             require_https = false\nadmin_key_file = {key:?}\n\
             [kafka]\n\"client.id\" = \"file\"\n\"linger.ms\" = 5\n\
             [destination_defaults]\ntimeout_ms = 5000\nretry = {{ strategy = \"schedule\", delays_ms = [10] }}\n\
             circuit = {{ open_ms = 500 }}\nguarantee = \"at_most_once\"\nordering = \"key\"\n\
             ordering_key_from = \"/data/id\"\nordering_on_dead = \"block\"\ndisable_after = {{ days = 3 }}\n"
        ),
    )
    .unwrap();
    let environment = [("SIGNALPOST_RETENTION_DAYS", "9"), ("SIGNALPOST_KAFKA_CLIENT_ID", "environment")];
    let named = [&environment[..], &[("SIGNALPOST_CONFIG", file.to_str().unwrap())]].concat();
    let by_variable = load(Kind::Standalone, &named).unwrap();
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = load_from(Kind::Standalone, Some(&file), environment).unwrap();
    assert_eq!(settings, by_variable);
    assert_eq!(settings.retention.events, Duration::from_secs(9 * 86_400));
    assert_eq!(settings.retention.dead_letters, Duration::from_secs(8 * 86_400 + 43_200));
    assert!(!settings.delivery.require_https);
    assert_eq!(settings.delivery.egress_allow.len(), 1);
    assert_eq!(settings.service.admin_keys.reveal(), ["0123456789abcdef"]);
    assert_eq!(
        settings.kafka_properties.iter().collect::<Vec<_>>(),
        [("client.id", "environment"), ("linger.ms", "5")]
    );
    assert_eq!(settings.destination_defaults["timeout_ms"], 5000);
    assert_eq!(settings.destination_defaults["retry"]["delays_ms"][0], 10);
    assert_eq!(settings.destination_defaults["circuit"]["open_ms"], 500);
    assert_eq!(settings.destination_defaults["ordering_on_dead"], "block");
}

#[test]
fn mistakes_in_the_file_are_named_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signalpost.toml");
    let at = file.display();
    for (content, line) in [
        ("retention_day = 3", format!("retention_day in {at} is not a setting; did you mean retention_days?")),
        ("Retention_Days = 3", format!("Retention_Days in {at} is not a setting; did you mean retention_days?")),
        ("retention_days = 0", format!("retention_days in {at} (`0`) must be a number from 1 to 3650 (days)")),
        (
            "[destination_defaults]\ntimeout = 3",
            format!("destination_defaults.timeout in {at} is not a setting; did you mean timeout_ms?"),
        ),
        (
            "[retention_days]\nx = 1",
            format!(
                "retention_days in {at} must be a string, a number, true, false or a list of strings or whole numbers"
            ),
        ),
    ] {
        fs::write(&file, content).unwrap();
        assert_eq!(load_from(Kind::Standalone, Some(&file), []).expect_err(content).to_string(), line);
    }
    fs::write(&file, "[destination_defaults]\nretry = { strategy = \"linear\" }").unwrap();
    let line = load_from(Kind::Standalone, Some(&file), []).expect_err("a bad default").to_string();
    assert!(line.starts_with(&format!("destination_defaults.retry in {at} is wrong: ")), "{line}");
    fs::write(&file, "retention_days = ").unwrap();
    let line = load_from(Kind::Standalone, Some(&file), []).expect_err("not TOML").to_string();
    assert!(line.contains("is not TOML: ") && !line.contains('\n'), "{line}");
    let absent = folder.path().join("absent.toml");
    let line = load_from(Kind::Standalone, Some(&absent), []).expect_err("no file").to_string();
    assert!(line.starts_with("SIGNALPOST_CONFIG: ") && line.contains("absent.toml cannot be read"), "{line}");
}

#[test]
fn other_names_of_settings_hold() {
    let settings =
        load(Kind::Standalone, &[("SIGNALPOST_CONSUMER_GROUP", "a"), ("SIGNALPOST_PARTITIONS", "7")]).unwrap();
    assert_eq!((settings.kafka.consumer_group.as_str(), settings.kafka.partitions.get()), ("a", 7));
    assert_eq!(
        error(&[("SIGNALPOST_PARTITIONS", "7"), ("SIGNALPOST_KAFKA_PARTITIONS", "7")]),
        "SIGNALPOST_KAFKA_PARTITIONS and SIGNALPOST_PARTITIONS are both set; set one"
    );
}

#[test]
fn a_secret_comes_once() {
    let line = error(&[("SIGNALPOST_ADMIN_KEY", "0123456789abcdef"), ("SIGNALPOST_ADMIN_KEY_FILE", "/nowhere")]);
    assert_eq!(line, "SIGNALPOST_ADMIN_KEY and SIGNALPOST_ADMIN_KEY_FILE are both set; set one");
    let line = error(&[("SIGNALPOST_ADMIN_KEY_FILE", "/nowhere/key")]);
    assert!(line.starts_with("SIGNALPOST_ADMIN_KEY_FILE: /nowhere/key cannot be read"), "{line}");
}
