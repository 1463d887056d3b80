//! What a setting is, and the macro that declares a concern: a struct and the description of its fields at once.

use std::fmt;

/// What every setting of the environment begins with.
pub const PREFIX: &str = "SIGNALPOST_";

/// What the name of a secret's file ends with.
pub(crate) const FILE: &str = "_FILE";

/// What is being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `signalpost dev`.
    Dev,
    /// `signalpost standalone`.
    Standalone,
    /// `signalpost-api`.
    Api,
    /// `signalpost-dispatcher`.
    Dispatcher,
    /// `signalpost-retry`.
    Retry,
    /// `signalpost migrate` and `signalpost doctor`: they look at what is set.
    Tool,
}

impl Kind {
    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Standalone => "standalone",
            Self::Api => "api",
            Self::Dispatcher => "dispatcher",
            Self::Retry => "retry",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What holds when nothing is set.
#[derive(Debug, Clone, Copy)]
pub enum Fallback {
    /// Nothing: it stays unset.
    Unset,
    /// The same for all.
    Text(&'static str),
    /// The first for `dev`, the second for all others.
    DevOr(&'static str, &'static str),
    /// For each kind its own; the first that names the kind holds.
    ByKind(&'static [(&'static [Kind], &'static str)]),
}

impl Fallback {
    /// For one kind.
    pub fn of(self, kind: Kind) -> Option<&'static str> {
        match self {
            Self::Unset => None,
            Self::Text(text) => Some(text),
            Self::DevOr(dev, others) => Some(if kind == Kind::Dev { dev } else { others }),
            Self::ByKind(all) => all.iter().find(|(kinds, _)| kinds.contains(&kind)).map(|(_, text)| *text),
        }
    }
}

/// The description of one setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Without the prefix; in TOML in lower case.
    pub name: &'static str,
    /// Another name of it, likewise without the prefix.
    pub alias: Option<&'static str>,
    /// What it means, and why one would change it.
    pub help: &'static str,
    /// What holds when it is not set.
    pub default: Fallback,
    /// Of its value; empty where it has none.
    pub unit: &'static str,
    /// A value that one may set.
    pub example: &'static str,
    /// Never shown; may come from a file.
    pub secret: bool,
    /// The smallest and the largest number.
    pub range: Option<(f64, f64)>,
    /// Who does not start without.
    pub needed_by: &'static [Kind],
    /// An empty text is a value (an empty list), and does not mean "not set".
    pub empty_is_a_value: bool,
}

impl Setting {
    /// What the macro fills up from.
    pub const PLAIN: Self = Self {
        name: "",
        alias: None,
        help: "",
        default: Fallback::Unset,
        unit: "",
        example: "",
        secret: false,
        range: None,
        needed_by: &[],
        empty_is_a_value: false,
    };

    /// Its key in TOML.
    pub fn key(&self) -> String {
        self.name.to_lowercase()
    }

    /// Its names, and those of the files of secrets.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let names = std::iter::once(self.name).chain(self.alias);
        let files = names.clone().filter(|_| self.secret).map(|name| format!("{name}{FILE}"));
        names.map(str::to_owned).chain(files)
    }

    /// Its name in the environment.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// Declares a concern: a struct whose fields are read by the type's [`crate::value::Value`], and `SETTINGS`, which
/// describes them.
macro_rules! concern {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $ty:ty = $env:literal { $($key:ident: $value:expr),* $(,)? }
            )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: $ty,)*
        }

        impl $name {
            /// What it is about.
            pub const ABOUT: &'static str = concat!($($about),+);
            /// What describes its fields, in their order.
            pub const SETTINGS: &'static [$crate::setting::Setting] = &[$(
                $crate::setting::Setting {
                    name: $env,
                    help: concat!($($help),+),
                    empty_is_a_value: <$ty as $crate::value::Value>::EMPTY_IS_A_VALUE,
                    $($key: $value,)*
                    ..$crate::setting::Setting::PLAIN
                }
            ),*];

            pub(crate) fn read(source: &$crate::source::Source) -> Result<Self, $crate::ConfigError> {
                let mut settings = Self::SETTINGS.iter();
                Ok(Self { $($field: source.read(settings.next(), $env)?,)* })
            }
        }
    };
}

pub(crate) use concern;
