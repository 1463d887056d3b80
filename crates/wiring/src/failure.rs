//! How a command fails, and with which exit code: 2 for a bad setting, 1 otherwise.

use std::process::ExitCode;

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub enum Failure {
    /// A setting or an argument is wrong; repeating does not help.
    Setting(String),
    /// Anything else.
    Other(anyhow::Error),
    /// The command has already said what there is to say.
    Told,
}

impl Failure {
    /// A wrong setting.
    pub fn setting(message: impl Into<String>) -> Self {
        Self::Setting(message.into())
    }

    /// Says it, in one line, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if !matches!(self, Self::Told) {
            eprintln!("signalpost: {self}");
        }
        if matches!(self, Self::Setting(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<signalpost_config::ConfigError> for Failure {
    fn from(error: signalpost_config::ConfigError) -> Self {
        Self::Setting(error.to_string())
    }
}

impl From<signalpost_telemetry::TelemetryError> for Failure {
    fn from(error: signalpost_telemetry::TelemetryError) -> Self {
        use signalpost_telemetry::TelemetryError;
        match error {
            TelemetryError::Filter { .. } | TelemetryError::NoOtlp => Self::Setting(error.to_string()),
            error => Self::Other(error.into()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting(message) => f.write_str(message),
            Self::Other(error) => write!(f, "{error:#}"),
            Self::Told => f.write_str("failed"),
        }
    }
}
