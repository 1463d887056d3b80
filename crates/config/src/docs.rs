//! `docs/configuration.md` and `.env.example`, from the declarations in [`crate::settings`].

use std::fmt::Write as _;

use crate::{
    Kind,
    defaults::MEMBERS,
    setting::{Fallback, PREFIX, Setting},
    settings::CONCERNS,
};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/config/src/settings.rs; cargo xtask generate writes it anew. -->

Settings come from the environment, and from a TOML file that `SIGNALPOST_CONFIG` or `--config` names; the environment
stands before the file. In the file a setting has its name in lower case, without the prefix: `SIGNALPOST_RETENTION_DAYS=90`
is `retention_days = 90`. Lists are separated by commas in the environment, and may be arrays of strings in the file.
An empty variable is one that is not set, except for lists.

A secret may come from a file: `SIGNALPOST_ADMIN_KEY_FILE=/run/secrets/admin-key` (in TOML `admin_key_file`); a line break at
its end does not count.

A setting that is not known, or a value that cannot be, stops the start with one line that names it, and exit code 2.
Every service accepts all settings, so one file serves them all. `SIGNALPOST_URL`, `SIGNALPOST_API_KEY`,
`SIGNALPOST_SIGN_SECRET` and `SIGNALPOST_SIGN_SCHEME` belong to `signalpost send`, and have no `_FILE`.
";

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (about, settings) in CONCERNS {
        let (title, text) = split(about);
        let _infallible = write!(page, "\n## {title}\n\n");
        if !text.is_empty() {
            let _infallible = write!(page, "{text}\n\n");
        }
        page.push_str("| setting | default | meaning |\n|---|---|---|\n");
        for setting in *settings {
            let _infallible =
                writeln!(page, "| `{}` | {} | {} |", setting.variable(), default(setting), meaning(setting));
        }
    }
    let members = MEMBERS.iter().map(|member| format!("`{member}`")).collect::<Vec<_>>().join(", ");
    let _infallible = write!(
        page,
        "\n## Tables of the file\n\n\
         `[destination_defaults]` holds what a new destination has where its owner says nothing, in the words of the\n\
         API: {members}.\n\n\
         `[kafka]` holds properties of librdkafka under their own names.\n\n\
         ```toml\nretention_days = 90\negress_allow = [\"10.20.0.0/16\"]\n\n\
         [destination_defaults]\ntimeout_ms = 10000\n\
         retry = {{ strategy = \"exponential\", initial_ms = 1000, factor = 2.0, max_ms = 3600000, max_attempts = 12 }}\n\n\
         [kafka]\n\"security.protocol\" = \"SASL_SSL\"\n```\n"
    );
    page
}

/// `.env.example`.
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting, with its default or an example. Generated from crates/config/src/settings.rs.\n\
         # docs/configuration.md says more. Nothing is run here: of a command, put what it prints in a shell.\n",
    );
    for (about, settings) in CONCERNS {
        let (title, _) = split(about);
        let _infallible = write!(text, "\n# {title}\n");
        for setting in *settings {
            let (help, _) = split(setting.help);
            let value = match setting.default {
                Fallback::Text(value) => value,
                // For a shell, which this file does not meet.
                _ if setting.example.contains("$(") => "what-the-command-above-prints",
                _ => setting.example,
            };
            let _infallible = writeln!(text, "\n# {help}.\n# {}={value}", setting.variable());
        }
    }
    text
}

/// The first sentence, without its full stop, and the rest.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(". ").unwrap_or_else(|| (text.strip_suffix('.').unwrap_or(text), ""))
}

fn default(setting: &Setting) -> String {
    let code = |text: &str| if text.is_empty() { "empty".to_owned() } else { format!("`{text}`") };
    match setting.default {
        Fallback::Unset => "not set".to_owned(),
        Fallback::Text(text) => code(text),
        Fallback::DevOr(dev, others) => format!("{} ({} in `dev`)", code(others), code(dev)),
        Fallback::ByKind(all) => {
            all.iter().map(|(kinds, text)| format!("{} ({})", code(text), names(kinds))).collect::<Vec<_>>().join(", ")
        }
    }
}

fn names(kinds: &[Kind]) -> String {
    let shown = kinds.iter().filter(|kind| **kind != Kind::Tool).map(|kind| kind.as_str());
    shown.collect::<Vec<_>>().join(", ")
}

fn meaning(setting: &Setting) -> String {
    let mut text = setting.help.trim().to_owned();
    if let Some((least, most)) = setting.range {
        let _infallible = write!(
            text,
            " {least} to {most}{}.",
            if setting.unit.is_empty() { "" } else { " " }.to_owned() + setting.unit
        );
    }
    if let Some(alias) = setting.alias {
        let _infallible = write!(text, " Also `{PREFIX}{alias}`.");
    }
    if setting.secret {
        text.push_str(" Secret.");
    }
    if !setting.needed_by.is_empty() {
        let _infallible = write!(text, " Needed by {}.", names(setting.needed_by));
    }
    let _infallible = write!(text, " Example: `{}`", setting.example);
    text
}
