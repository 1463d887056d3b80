//! The members of an object, each with the text of its value as it was written.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::{FieldError, Problem};

/// In the order of the text, duplicates included.
#[derive(Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads a text that is an object. It must be valid UTF-8 and shallow enough already.
    ///
    /// # Errors
    /// 400 where it is not JSON; 422 where it is, but no object, or has a member twice.
    pub fn read(text: &'a str) -> Result<Self, Problem> {
        let members: Self = serde_json::from_str(text).map_err(|error| {
            // What follows the place where reading stopped may still be no JSON at all; and a name that is no Unicode is.
            match serde_json::from_str::<&RawValue>(text) {
                Err(_) => not_json(&error),
                Ok(raw) if raw.get().starts_with('{') => {
                    Problem::invalid_at("", "has a member whose name is not Unicode")
                }
                Ok(_) => Problem::invalid_at("", "must be an object"),
            }
        })?;
        let twice = members.twice();
        if twice.is_empty() { Ok(members) } else { Err(Problem::invalid(twice)) }
    }

    fn twice(&self) -> Vec<FieldError> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let mut twice: Vec<&str> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        twice.dedup();
        twice.into_iter().map(|name| FieldError::new(child("", name), "stands twice")).collect()
    }

    /// Takes one out by name.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let place = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// What was not taken.
    pub fn rest(self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        self.0.into_iter()
    }
}

/// 400, with the place where reading stopped, or where it ended too early.
pub fn not_json(error: &serde_json::Error) -> Problem {
    if (error.line(), error.column()) == (1, 0) {
        return Problem::not_json("This is not JSON: there is nothing to read.");
    }
    let why = if error.is_eof() { "it ends" } else { "reading stopped" };
    Problem::not_json(format!("This is not JSON: {why} at line {}, column {}.", error.line(), error.column()))
}

/// The pointer to a member of what `parent` points to.
pub fn child(parent: &str, member: &str) -> String {
    format!("{parent}/{}", member.replace('~', "~0").replace('/', "~1"))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

/// A name, borrowed where it has no escapes (serde's own `Cow` never borrows).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[test]
    fn values_stay_as_they_were_written() {
        let text = r#"{"a": 1.0e400 , "b":{"x":1, "x" :2},"c\u0041":"\ud800\u0000"}"#;
        let mut members = Members::read(text).ok().unwrap();
        assert_eq!(members.take("a").unwrap().get(), "1.0e400");
        assert_eq!(members.take("b").unwrap().get(), r#"{"x":1, "x" :2}"#);
        assert_eq!(members.take("cA").unwrap().get(), r#""\ud800\u0000""#);
        assert!(members.take("a").is_none());
        assert_eq!(members.rest().count(), 0);
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        let code = |text: &str| Members::read(text).err().map(|problem| problem.code);
        for text in ["", "{", "[1, 2", "nul", "{\"a\":}", "{\"a\":1} x", "{a:1}", "\"", "[1,]", "{\"a\":01}"] {
            assert_eq!(code(text), Some(Code::InvalidJson), "{text}");
        }
        for text in ["[]", "1", "null", "\"text\"", "[{\"a\":1}]", "{\"a\":1,\"a\":2}", "{\"\\ud800\":1}"] {
            assert_eq!(code(text), Some(Code::ValidationFailed), "{text}");
        }
        assert_eq!(code(" {} "), None);
    }

    #[test]
    fn a_duplicate_is_pointed_to() {
        let problem = Members::read(r#"{"a/b":1,"c":2,"a/b":3,"a/b":4}"#).err().unwrap();
        assert_eq!(problem.errors, [FieldError::new("/a~1b", "stands twice")]);
    }
}
