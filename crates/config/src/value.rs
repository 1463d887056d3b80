//! How the text of a setting becomes its value. The error completes the sentence "SIGNALPOST_X (`value`) …".

use std::{
    fmt::Display,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use signalpost_core::Secret;

use crate::setting::Setting;

/// A type of setting.
pub(crate) trait Value: Sized {
    /// As [`Setting::empty_is_a_value`].
    const EMPTY_IS_A_VALUE: bool = false;

    /// From the text.
    fn parse(text: &str, setting: &Setting) -> Result<Self, String>;

    /// When there is no text and no default.
    fn unset() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const EMPTY_IS_A_VALUE: bool = T::EMPTY_IS_A_VALUE;

    fn parse(text: &str, setting: &Setting) -> Result<Self, String> {
        T::parse(text, setting).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

/// A number within the range of its setting.
fn number<T: FromStr>(text: &str, setting: &Setting, what: &str) -> Result<T, String> {
    let wrong = || match setting.range {
        Some((least, most)) => format!("must be {what} from {least} to {most}{}", unit(setting)),
        None => format!("must be {what}{}", unit(setting)),
    };
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(wrong)?;
    if setting.range.is_some_and(|(least, most)| !(least..=most).contains(&value)) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

fn unit(setting: &Setting) -> String {
    if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) }
}

macro_rules! numbers {
    ($($ty:ty: $what:literal),*) => {$(
        impl Value for $ty {
            fn parse(text: &str, setting: &Setting) -> Result<Self, String> {
                number(text, setting, $what)
            }
        }
    )*};
}

numbers!(NonZeroU32: "a whole number", NonZeroUsize: "a whole number", f64: "a number");

impl Value for Duration {
    fn parse(text: &str, setting: &Setting) -> Result<Self, String> {
        let seconds = match setting.unit {
            "days" => 86_400.0,
            "hours" => 3600.0,
            "seconds" => 1.0,
            other => return Err(format!("has a unit that is no time (`{other}`)")),
        };
        Self::try_from_secs_f64(number::<f64>(text, setting, "a number")? * seconds)
            .map_err(|error| format!("is no time: {error}"))
    }
}

impl Value for bool {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

impl Value for SocketAddr {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        address(text)
    }
}

/// An address to listen on, of a setting or of the command line; `localhost` is IPv4's.
///
/// # Errors
/// What it must be.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let with_host = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    with_host
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "must be an IP address and a port, e.g. 127.0.0.1:8080".to_owned())
}

impl Value for String {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        Ok(Self::from(text))
    }
}

/// The URL of a database, of Redis or of a proxy: secret, because it may hold a password.
impl Value for Secret {
    fn parse(text: &str, setting: &Setting) -> Result<Self, String> {
        let schemes: &[&str] = match setting.name {
            "DATABASE_URL" => &["postgres", "postgresql"],
            "REDIS_URL" => &["redis", "rediss"],
            "EGRESS_PROXY" => &["http"],
            _ => return Ok(Self::new(text)),
        };
        url_of(text, schemes)?;
        Ok(Self::new(text))
    }
}

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Url {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        url_of(text, &["http", "https"])?;
        Ok(Self(text.to_owned()))
    }
}

fn url_of(text: &str, schemes: &[&str]) -> Result<(), String> {
    let expected = || {
        let names = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>();
        format!("must be a URL with a host that begins with {}", names.join(" or "))
    };
    let url = url::Url::parse(text).map_err(|_| expected())?;
    if schemes.contains(&url.scheme()) && url.has_host() { Ok(()) } else { Err(expected()) }
}

fn items<T: FromStr>(text: &str, expected: &str) -> Result<Vec<T>, String>
where
    T::Err: Display,
{
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| part.parse().map_err(|error| format!("must be {expected}; `{}`: {error}", part.escape_debug())))
        .collect()
}

impl Value for Vec<IpNet> {
    const EMPTY_IS_A_VALUE: bool = true;

    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        items(text, "a list of CIDRs, e.g. 10.20.0.0/16,fd00::/8")
    }
}

impl Value for Vec<u16> {
    const EMPTY_IS_A_VALUE: bool = true;

    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        items(text, "a list of ports, e.g. 22,25,5432")
    }
}

/// The operator's keys, newest first. `Debug` shows how many.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// Each of them.
    pub fn reveal(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Value for Keys {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        let keys = text.split(',').map(str::trim).map(str::to_owned).collect::<Vec<_>>();
        let long_and_visible = |key: &String| key.len() >= 16 && key.bytes().all(|byte| byte.is_ascii_graphic());
        if keys.iter().all(long_and_visible) {
            Ok(Self(keys))
        } else {
            Err("must be keys of 16 or more visible ASCII characters, separated by commas".to_owned())
        }
    }

    fn unset() -> Option<Self> {
        Some(Self::default())
    }
}
