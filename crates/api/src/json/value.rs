//! A JSON value in memory, with every duplicate key noted.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, error::Category, value::RawValue};

use super::members::{child, not_json};
use crate::problem::{FieldError, Problem};

/// Reads an object whole. The text must be valid UTF-8 and shallow enough already.
///
/// # Errors
/// 400 where it is not JSON; 422 where it is, but no object, or has a member twice, at any level.
pub fn read_object(text: &str) -> Result<Map<String, Value>, Problem> {
    let mut twice = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Strict { pointer: String::new(), twice: &mut twice };
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(_) if !twice.is_empty() => Err(Problem::invalid(twice)),
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::invalid_at("", "must be an object")),
        Err(error) if error.classify() == Category::Data => Err(Problem::invalid_at("", "cannot be read")),
        // Lone surrogates, numbers out of range and 128 levels are JSON; only what breaks the grammar is not.
        Err(error) => Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Problem::invalid_at(
                "",
                "holds a text that is not Unicode, a number that is out of range, or too many levels",
            ),
            Err(_) => not_json(&error),
        }),
    }
}

struct Strict<'t> {
    pointer: String,
    twice: &'t mut Vec<FieldError>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let pointer = format!("{}/{}", self.pointer, list.len());
            match items.next_element_seed(Strict { pointer, twice: &mut *self.twice })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let pointer = child(&self.pointer, &name);
            if members.contains_key(&name) {
                self.twice.push(FieldError::new(pointer.clone(), "stands twice"));
            }
            let value = entries.next_value_seed(Strict { pointer, twice: &mut *self.twice })?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[test]
    fn duplicates_are_found_at_any_level() {
        let problem = read_object(r#"{"a":{"b":[{"c":1,"c":2}]},"d":1,"d":2}"#).unwrap_err();
        assert_eq!(
            problem.errors,
            [FieldError::new("/a/b/0/c", "stands twice"), FieldError::new("/d", "stands twice")]
        );
    }

    #[test]
    fn grammar_is_400_and_the_rest_422() {
        for (text, code) in [
            ("{", Code::InvalidJson),
            ("{} {}", Code::InvalidJson),
            ("[]", Code::ValidationFailed),
            (r#"{"a":"\ud800"}"#, Code::ValidationFailed),
            (r#"{"a":1e999}"#, Code::ValidationFailed),
        ] {
            assert_eq!(read_object(text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(read_object(r#"{"a":[1,-2,0.5,null,true,"x"]}"#).unwrap()["a"].as_array().unwrap().len(), 6);
    }
}
