//! Reads the members of a JSON object one by one and notes everything that is wrong with them, so that a client
//! learns of all its mistakes at once, each with a JSON Pointer (RFC 6901).
//!
//! A member that is absent or `null` takes its default; what nobody asked for is unknown.

use std::{fmt::Display, ops::RangeInclusive};

use serde_json::{Map, Value};

use signalpost_core::DestinationId;

use crate::{
    events::rules,
    json::child,
    problem::{FieldError, Problem},
};

/// What is wrong with a body.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldError>);

impl Violations {
    /// Notes one more.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Display) {
        self.0.push(FieldError::new(pointer, detail.to_string()));
    }

    /// The value, where nothing is wrong.
    ///
    /// # Errors
    /// 422, with everything that was noted.
    pub fn or<T>(self, value: T) -> Result<T, Problem> {
        if self.0.is_empty() { Ok(value) } else { Err(Problem::invalid(self.0)) }
    }
}

/// What a value is, for a sentence.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The members of one object.
pub struct Fields<'a> {
    members: &'a Map<String, Value>,
    pointer: String,
    violations: &'a mut Violations,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Those of the object that `pointer` points to.
    pub fn new(members: &'a Map<String, Value>, pointer: impl Into<String>, violations: &'a mut Violations) -> Self {
        Self { members, pointer: pointer.into(), violations, asked: Vec::new() }
    }

    /// The pointer to one of them.
    pub fn pointer(&self, name: &str) -> String {
        child(&self.pointer, name)
    }

    /// Notes that one of them is wrong.
    pub fn wrong(&mut self, name: &str, detail: impl Display) {
        let pointer = self.pointer(name);
        self.violations.add(pointer, detail);
    }

    /// Notes that something below one of them is wrong.
    pub fn wrong_at(&mut self, pointer: String, detail: impl Display) {
        self.violations.add(pointer, detail);
    }

    /// Whether it is there, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Whether it is not there, or `null`.
    pub fn is_absent(&self, name: &str) -> bool {
        self.members.get(name).is_none_or(Value::is_null)
    }

    /// Takes these for known, without a look at them.
    pub fn ask(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
    }

    /// Refuses those of these that are there, with what to do instead.
    pub fn refuse(&mut self, names: &[&'static str], detail: &str) {
        for name in names {
            self.asked.push(name);
            if self.has(name) {
                self.wrong(name, detail);
            }
        }
    }

    /// Whether it is there and `null`.
    pub fn is_null(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(Value::is_null)
    }

    /// As it is written; None where it is absent or `null`.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.push(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn expected(&mut self, name: &str, expected: &str, found: &Value) {
        self.wrong(name, format_args!("must be {expected}, not {}", kind(found)));
    }

    /// A text of so many characters, without NUL.
    pub fn text(&mut self, name: &'static str, characters: RangeInclusive<usize>) -> Option<&'a str> {
        let value = self.value(name)?;
        let Some(text) = value.as_str() else {
            self.expected(name, "a string", value);
            return None;
        };
        match check_text(text, characters) {
            Ok(()) => Some(text),
            Err(detail) => {
                self.wrong(name, detail);
                None
            }
        }
    }

    /// A whole number. `5.0` is one, as in JSON Schema.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(name)?;
        let number = as_integer(value);
        if number.is_none_or(|number| !range.contains(&number)) {
            self.wrong(name, format_args!("must be a whole number from {} to {}", range.start(), range.end()));
            return None;
        }
        number
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(name)?;
        let number = value.as_f64();
        if number.is_none_or(|number| !range.contains(&number)) {
            self.wrong(name, format_args!("must be a number from {} to {}", range.start(), range.end()));
            return None;
        }
        number
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.value(name)?;
        if value.as_bool().is_none() {
            self.expected(name, "a boolean", value);
        }
        value.as_bool()
    }

    /// One of a few names.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.value(name)?;
        let chosen = value.as_str().and_then(|text| choices.iter().find(|(choice, _)| *choice == text));
        if chosen.is_none() {
            let names: Vec<String> = choices.iter().map(|(choice, _)| format!("`{choice}`")).collect();
            self.wrong(name, format_args!("must be one of {}", names.join(", ")));
        }
        chosen.map(|(_, value)| *value)
    }

    /// What a parser makes of a text.
    pub fn parsed<T, E: Display>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.value(name)?;
        let Some(text) = value.as_str() else {
            self.expected(name, "a string", value);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error);
                None
            }
        }
    }

    /// A list of at most so many items.
    pub fn list(&mut self, name: &'static str, most: usize) -> Option<&'a [Value]> {
        let value = self.value(name)?;
        let Some(items) = value.as_array() else {
            self.expected(name, "a list", value);
            return None;
        };
        if items.len() > most {
            self.wrong(name, format_args!("may have at most {most} items"));
            return None;
        }
        Some(items)
    }

    /// A list of at most so many items, each of which `read` understands.
    pub fn items<T, E: Display>(
        &mut self,
        name: &'static str,
        most: usize,
        read: impl Fn(&Value) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let items = self.list(name, most)?;
        let list = self.pointer(name);
        let mut all = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match read(item) {
                Ok(item) => all.push(item),
                Err(error) => self.violations.add(child(&list, &index.to_string()), error),
            }
        }
        Some(all)
    }

    /// An object.
    pub fn members(&mut self, name: &'static str) -> Option<&'a Map<String, Value>> {
        let value = self.value(name)?;
        if value.as_object().is_none() {
            self.expected(name, "an object", value);
        }
        value.as_object()
    }

    /// An object, read by `read`.
    pub fn object<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Option<T> {
        let members = self.members(name)?;
        let mut fields = Fields::new(members, self.pointer(name), self.violations);
        let value = read(&mut fields);
        fields.finish(&[]);
        value
    }

    /// A list of so many objects, each read by `read`; those that it understood, with their places.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        count: RangeInclusive<usize>,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Vec<(usize, T)>> {
        let items = self.list(name, *count.end())?;
        if items.len() < *count.start() {
            self.wrong(name, format_args!("must have {} to {} items", count.start(), count.end()));
            return None;
        }
        let list = self.pointer(name);
        let mut all = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let pointer = child(&list, &index.to_string());
            let Some(members) = item.as_object() else {
                self.violations.add(pointer, format_args!("must be an object, not {}", kind(item)));
                continue;
            };
            let mut fields = Fields::new(members, pointer, self.violations);
            let value = read(&mut fields);
            fields.finish(&[]);
            all.extend(value.map(|value| (index, value)));
        }
        Some(all)
    }

    /// Notes every member that was not asked for.
    pub fn finish(self, read_only: &[&str]) {
        for name in self.members.keys().filter(|name| !self.asked.contains(&name.as_str())) {
            let detail = if read_only.contains(&name.as_str()) { "is read-only" } else { "is not a known field" };
            self.violations.add(child(&self.pointer, name), detail);
        }
    }
}

/// A whole number, be it written with a fraction of zero.
pub fn as_integer(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        // Above 2^53 not every f64 is the number that was written.
        let number = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(n))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within the range")]
        Some(number as u64)
    })
}

/// A text that can name a destination: its id, or its `uid`.
///
/// # Errors
/// What is wrong, for the one who wrote it.
pub fn destination_name(text: &str) -> Result<String, &'static str> {
    if text.parse::<DestinationId>().is_ok() || rules::uid(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("must be the id or the uid of a destination")
    }
}

/// Whether a text may be stored: its number of characters, and no NUL.
///
/// # Errors
/// What is wrong, for the one who wrote it.
pub fn check_text(text: &str, characters: RangeInclusive<usize>) -> Result<(), String> {
    if text.contains('\0') {
        return Err("may not contain NUL".to_owned());
    }
    if !characters.contains(&text.chars().count()) {
        return Err(if *characters.start() == 0 {
            format!("may have at most {} characters", characters.end())
        } else {
            format!("must have {} to {} characters", characters.start(), characters.end())
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(body: Value, read: impl FnOnce(&mut Fields<'_>)) -> Vec<(String, String)> {
        let mut violations = Violations::default();
        let mut fields = Fields::new(body.as_object().unwrap(), "", &mut violations);
        read(&mut fields);
        fields.finish(&["id"]);
        let found = violations.or(()).err().map(|problem| problem.errors).unwrap_or_default();
        found.into_iter().map(|v| (v.pointer, v.detail)).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_with_pointers() {
        let found = violations(
            json!({"id": 1, "a/b~c": 2, "n": 1.5, "t": 5, "o": {"inner": 0, "more": 1}, "l": ["x", 3]}),
            |fields| {
                assert_eq!(fields.integer("n", 0..=9), None);
                assert_eq!(fields.text("t", 0..=3), None);
                let inner = fields.object("o", |fields| fields.integer("inner", 1..=2));
                assert_eq!(inner, None);
                fields.items("l", 5, |item| item.as_str().map(str::to_owned).ok_or("must be a string"));
            },
        );
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/n", "/t", "/o/inner", "/o/more", "/l/1", "/a~1b~0c", "/id"]);
        assert_eq!(found[6].1, "is read-only");
    }

    #[test]
    fn null_and_absent_take_the_default_and_a_zero_fraction_is_whole() {
        let found = violations(json!({"a": null, "n": 5.0}), |fields| {
            assert_eq!(fields.text("a", 1..=3), None);
            assert_eq!(fields.text("b", 1..=3), None);
            assert_eq!(fields.integer("n", 1..=9), Some(5));
        });
        assert_eq!(found, []);
    }
}
