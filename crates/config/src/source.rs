//! Where settings come from: the environment, files of secrets, and a TOML file; in this order.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    ConfigError, Kind, Settings,
    defaults::{self, DestinationDefaults},
    error::nearest,
    kafka::{self, KAFKA, Properties},
    setting::{FILE, PREFIX, Setting},
    settings::{self, Delivery, Ingest, Kafka, Retention, Service, Storage, Telemetry},
    value::Value,
};

/// Names the TOML file.
pub const CONFIG: &str = "SIGNALPOST_CONFIG";

/// Variables of ours that are no settings of a service: of the client commands, of tests, of generators.
const OTHERS: &[&str] = &["URL", "API_KEY", "SIGN_SECRET", "SIGN_SCHEME", "CONFIG", "REGENERATE"];
const OTHER_PREFIXES: &[&str] = &["TEST_", "DEV_"];

/// Reads the settings of the process.
///
/// # Errors
/// One is not known, cannot be, or is missing.
pub fn load(kind: Kind, config: Option<&Path>) -> Result<Settings, ConfigError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    load_from(kind, config, environment)
}

/// Reads the settings of a given environment. `config` (of the command line) stands before `SIGNALPOST_CONFIG`.
///
/// # Errors
/// One is not known, cannot be, or is missing.
pub fn load_from(
    kind: Kind,
    config: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let environment: BTreeMap<String, String> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .filter(|(name, value)| !is_service_link(name, value))
        .collect();
    let named = environment.get("CONFIG").filter(|path| !path.trim().is_empty()).map(PathBuf::from);
    let file = match config.map(Path::to_owned).or(named) {
        Some(path) => Some(File::read(path)?),
        None => None,
    };
    let mut source =
        Source { kind, environment, file, defaults: DestinationDefaults::new(), kafka: Properties::default() };
    source.take_variables()?;
    source.take_file()?;
    source.settings()
}

/// What was found.
pub(crate) struct Source {
    kind: Kind,
    /// Without the prefix.
    environment: BTreeMap<String, String>,
    file: Option<File>,
    defaults: DestinationDefaults,
    kafka: Properties,
}

struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    fn read(path: PathBuf) -> Result<Self, ConfigError> {
        let text = read_file(CONFIG, &path)?;
        match text.parse::<toml::Table>() {
            Ok(table) => Ok(Self { path, table }),
            Err(error) => Err(ConfigError::Syntax { path, problem: one_line(&error.to_string()) }),
        }
    }

    fn found(&self, key: &str) -> String {
        format!("{key} in {}", self.path.display())
    }
}

/// A text that was found for a setting, and where.
struct Found {
    name: String,
    text: String,
}

impl Source {
    /// Reads one setting. `setting` describes it; it is `None` only if the declaration lost its description.
    pub(crate) fn read<T: Value>(&self, setting: Option<&Setting>, name: &str) -> Result<T, ConfigError> {
        let Some(setting) = setting.filter(|setting| setting.name == name) else {
            return Err(ConfigError::Unknown { name: format!("{PREFIX}{name}"), suggestion: None });
        };
        // Empty here, though not where it was found: the file of a secret.
        let found = self.find(setting)?.filter(|found| says_something(setting, &found.text));
        let found = match (found, setting.default.of(self.kind)) {
            (Some(found), _) => found,
            (None, Some(text)) => {
                Found { name: format!("the default of {}", setting.variable()), text: text.to_owned() }
            }
            (None, None) if setting.needed_by.contains(&self.kind) => {
                return Err(ConfigError::Missing { name: setting.name, kind: self.kind, example: setting.example });
            }
            (None, None) => {
                return T::unset().ok_or(ConfigError::Missing {
                    name: setting.name,
                    kind: self.kind,
                    example: setting.example,
                });
            }
        };
        T::parse(found.text.trim(), setting).map_err(|problem| ConfigError::Invalid {
            name: found.name,
            value: (!setting.secret).then_some(found.text),
            problem,
        })
    }

    /// What the environment says, else what the file says.
    fn find(&self, setting: &Setting) -> Result<Option<Found>, ConfigError> {
        let variables = setting.names().filter_map(|name| {
            let text = self.environment.get(&name).filter(|text| says_something(setting, text))?.clone();
            Some(Found { name: format!("{PREFIX}{name}"), text })
        });
        if let Some(found) = resolve(setting, variables)? {
            return Ok(Some(found));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let keys = setting.names().filter_map(|name| {
            let key = name.to_lowercase();
            Some((file.found(&key), file.table.get(&key)?))
        });
        let keys = keys
            .map(|(name, value)| match text_of(value) {
                Some(text) => Ok(Found { name, text }),
                None => Err(not_a_value(&name)),
            })
            .filter(|found| found.as_ref().map_or(true, |found| says_something(setting, &found.text)))
            .collect::<Result<Vec<_>, _>>()?;
        resolve(setting, keys)
    }

    /// Looks at every variable: one that is not known is an error, properties of Kafka are taken.
    fn take_variables(&mut self) -> Result<(), ConfigError> {
        for (name, value) in &self.environment {
            let of_others = OTHERS.contains(&name.as_str()) || OTHER_PREFIXES.iter().any(|p| name.starts_with(p));
            if of_others || is_known(name) {
                continue;
            }
            let variable = format!("{PREFIX}{name}");
            let Some(property) = name.strip_prefix(KAFKA).filter(|property| !property.is_empty()) else {
                let suggestion = nearest(name, settings::all().map(|s| s.name)).map(|near| format!("{PREFIX}{near}"));
                return Err(ConfigError::Unknown { name: variable, suggestion });
            };
            if let Some(suggestion) = kafka::misspelt(name) {
                return Err(ConfigError::Unknown { name: variable, suggestion: Some(suggestion) });
            }
            if value.trim().is_empty() {
                continue;
            }
            let by_file = property.strip_suffix(FILE).map(kafka::property_of).filter(|p| kafka::is_secret(p));
            match by_file {
                Some(property) => {
                    let content = read_file(&variable, Path::new(value))?;
                    self.kafka.add(&variable, &property, content.trim().to_owned())?;
                }
                None => self.kafka.add(&variable, &kafka::property_of(property), value.clone())?,
            }
        }
        Ok(())
    }

    /// Looks at every key of the file likewise.
    fn take_file(&mut self) -> Result<(), ConfigError> {
        let Some(file) = &self.file else { return Ok(()) };
        for (key, value) in &file.table {
            match (key.as_str(), value) {
                ("destination_defaults", toml::Value::Table(table)) => {
                    self.defaults = defaults::read(table, &file.path.display().to_string())?;
                }
                ("kafka", toml::Value::Table(table)) => {
                    for (property, value) in table {
                        let found = file.found(&format!("kafka.\"{property}\""));
                        let text = text_of(value).ok_or_else(|| not_a_value(&found))?;
                        self.kafka.add(&found, property, text)?;
                    }
                }
                _ if is_known(&key.to_uppercase()) && *key == key.to_lowercase() => {}
                _ => {
                    let keys = settings::all().map(Setting::key).collect::<Vec<_>>();
                    let tables = ["destination_defaults", "kafka"];
                    let known = keys.iter().map(String::as_str).chain(tables);
                    let suggestion = nearest(&key.to_lowercase(), known).map(str::to_owned);
                    return Err(ConfigError::Unknown { name: file.found(key), suggestion });
                }
            }
        }
        Ok(())
    }

    fn settings(self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            kind: self.kind,
            service: Service::read(&self)?,
            storage: Storage::read(&self)?,
            kafka: Kafka::read(&self)?,
            ingest: Ingest::read(&self)?,
            delivery: Delivery::read(&self)?,
            retention: Retention::read(&self)?,
            telemetry: Telemetry::read(&self)?,
            kafka_properties: self.kafka,
            destination_defaults: self.defaults,
        })
    }
}

/// Not empty, or a list: of anything else an empty text means that it is not set, and hides nothing.
fn says_something(setting: &Setting, text: &str) -> bool {
    setting.empty_is_a_value || !text.trim().is_empty()
}

/// The one way in which a setting is given; of a secret's file, its content.
fn resolve(setting: &Setting, found: impl IntoIterator<Item = Found>) -> Result<Option<Found>, ConfigError> {
    let mut found = found.into_iter();
    let Some(one) = found.next() else { return Ok(None) };
    if let Some(other) = found.next() {
        return Err(ConfigError::Both { name: one.name, other: other.name });
    }
    let key = one.name.split(' ').next().unwrap_or_default();
    if !setting.secret || !key.to_uppercase().ends_with(FILE) {
        return Ok(Some(one));
    }
    Ok(Some(Found { text: read_file(&one.name, Path::new(&one.text))?, name: one.name }))
}

/// Whether it is a name of a setting (without the prefix), or of the file of a secret one.
fn is_known(name: &str) -> bool {
    settings::all().any(|setting| setting.names().any(|known| known == name))
}

/// Whether it was put there by Kubernetes or Docker for a service that is called `signalpost…`, not by a person:
/// `…_SERVICE_HOST=10.0.0.1`, `…_PORT=tcp://10.0.0.1:8080`, `…_PORT_8080_TCP_ADDR=10.0.0.1`.
fn is_service_link(name: &str, value: &str) -> bool {
    let whole = format!("_{name}");
    whole.ends_with("_SERVICE_HOST")
        || whole.contains("_SERVICE_PORT")
        || (whole.ends_with("_PORT") && value.contains("://"))
        || (whole.contains("_PORT_") && ["_TCP", "_UDP"].iter().any(|protocol| whole.contains(protocol)))
}

/// The text that a variable would have.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(items) => {
            let items = items.iter().map(|item| match item {
                toml::Value::String(text) if !text.contains(',') => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                _ => None,
            });
            Some(items.collect::<Option<Vec<_>>>()?.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn not_a_value(name: &str) -> ConfigError {
    let problem = "must be a string, a number, true, false or a list of strings or whole numbers".to_owned();
    ConfigError::Invalid { name: name.to_owned(), value: None, problem }
}

fn read_file(name: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        name: name.to_owned(),
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
