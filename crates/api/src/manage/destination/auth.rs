//! `auth`: how requests say who sends them. Written, and never shown.

use serde_json::{Map, Value};
use signalpost_core::secret::{Auth, Secret};

use super::{Fields, MAX_VALUE, signatures::header_name};
use crate::manage::fields::check_text;

#[derive(Clone, Copy)]
enum Type {
    Basic,
    Bearer,
    ApiKey,
}

/// What was written: none where nothing was, `Some(None)` where there shall be none.
pub fn read(fields: &mut Fields<'_>, document: &Map<String, Value>) -> Option<Option<Auth>> {
    let auth = fields.object("auth", auth);
    document.contains_key("auth").then_some(auth)
}

fn auth(fields: &mut Fields<'_>) -> Option<Auth> {
    let types = [("basic", Type::Basic), ("bearer", Type::Bearer), ("api_key", Type::ApiKey)];
    let Some(kind) = fields.choice("type", &types) else {
        if fields.is_absent("type") {
            fields.wrong("type", "is required");
        }
        fields.ask(&["username", "password", "token", "header", "value"]);
        return None;
    };
    match kind {
        Type::Basic => {
            let username = required(fields, "username", |text| {
                plain(text, 0..=256)?;
                // RFC 7617, section 2.
                if text.contains(':') { Err("may not contain a colon".to_owned()) } else { Ok(text.to_owned()) }
            });
            let password = required(fields, "password", |text| plain(text, 0..=MAX_VALUE).map(|()| Secret::new(text)));
            Some(Auth::Basic { username: username?, password: password? })
        }
        Type::Bearer => required(fields, "token", header_value).map(|token| Auth::Bearer { token }),
        Type::ApiKey => {
            let header = required(fields, "header", header_name);
            let value = required(fields, "value", header_value);
            Some(Auth::ApiKey { header: header?, value: value? })
        }
    }
}

fn required<T>(fields: &mut Fields<'_>, name: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let value = fields.parsed(name, read);
    if fields.is_absent(name) {
        fields.wrong(name, "is required");
    }
    value
}

fn plain(text: &str, characters: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    check_text(text, characters)?;
    if text.chars().any(char::is_control) { Err("may not contain control characters".to_owned()) } else { Ok(()) }
}

/// What a header can hold, as it is: without placeholders, and with nothing at its ends that a receiver would cut off.
fn header_value(text: &str) -> Result<Secret, String> {
    check_text(text, 1..=MAX_VALUE)?;
    let fits = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
    fits.then(|| Secret::new(text)).ok_or_else(|| "must be visible ASCII characters".to_owned())
}

/// The name of the header that they become, in lower case.
pub fn header_of(auth: &Auth) -> String {
    match auth {
        Auth::Basic { .. } | Auth::Bearer { .. } => "authorization".to_owned(),
        Auth::ApiKey { header, .. } => header.to_ascii_lowercase(),
    }
}
