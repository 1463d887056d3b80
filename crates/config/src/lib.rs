//! Settings: all of them, in one place, each with its default, unit, example and reason.
//!
//! [`settings`] declares them, one struct per concern. [`load`] reads them from the environment (`SIGNALPOST_…`, and
//! `SIGNALPOST_…_FILE` for secrets) and from a TOML file (`SIGNALPOST_CONFIG` or `--config`), the environment first.
//! A setting that is not known, or a value that cannot be, is an error of one line that names it. [`docs`] makes
//! `docs/configuration.md` and `.env.example` from the same declarations.

pub mod defaults;
pub mod docs;
pub mod error;
pub mod kafka;
mod logs;
pub mod setting;
pub mod settings;
pub mod source;
mod value;

pub use error::ConfigError;
pub use logs::{Format, LogFilter};
pub use setting::Kind;
pub use settings::Settings;
pub use source::{load, load_from};
pub use value::address;
