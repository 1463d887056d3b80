//! What is secret of a destination after a change, from what it was and what was asked for.

use serde_json::{Map, Value};
use signalpost_core::{
    DestinationSecrets, Entropy, Timestamp,
    secret::{MAX_PREVIOUS, PreviousSecret, Secret},
    signature::SignatureScheme,
};
use signalpost_sender::signatures;

use super::{Draft, auth};
use crate::{audit::MASK, problem::Problem};

/// The secret where none was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// The one that is there; where there is none, a new one.
    Keep,
    /// A new one.
    Make,
}

impl Draft {
    /// What is secret of it from now on. `before`: what was, where it was there. A secret that is set takes the place of all that sign;
    /// with an overlap they are replaced by [`rotate`] alone.
    ///
    /// # Errors
    /// 422: the secret that is there cannot sign with the schemes, or its credentials are a header that is written already.
    pub fn secrets(
        &self,
        before: Option<&DestinationSecrets>,
        otherwise: Otherwise,
        entropy: &dyn Entropy,
    ) -> Result<DestinationSecrets, Problem> {
        let schemes = &self.spec.signatures;
        let kept = before.filter(|_| otherwise == Otherwise::Keep);
        let current = match (&self.secret, kept) {
            (Some(given), _) => given.clone(),
            (None, Some(before)) => {
                signatures::check(schemes, before.current.reveal()).map_err(|error| {
                    Problem::invalid_at(
                        "/secret",
                        format!("must be given with these `signatures`, or null to have one made: the secret that is there {error}"),
                    )
                })?;
                before.current.clone()
            }
            (None, None) => signatures::make(schemes, entropy),
        };
        let unchanged = before.filter(|before| before.current == current);
        let auth = match &self.auth {
            Some(given) => given.clone(),
            None => before.and_then(|before| before.auth.clone()),
        };
        if let Some(auth) = &auth {
            let header = auth::header_of(auth);
            let signed = schemes.iter().any(
                |scheme| matches!(scheme, SignatureScheme::Hmac(hmac) if hmac.header.eq_ignore_ascii_case(&header)),
            );
            if signed || self.headers.keys().any(|name| name.eq_ignore_ascii_case(&header)) {
                let other = if signed { "signatures" } else { "headers" };
                return Err(Problem::invalid_at("/auth", format!("writes the header `{header}`, as `{other}` does")));
            }
        }
        Ok(DestinationSecrets {
            current,
            previous: unchanged.map(|before| before.previous.clone()).unwrap_or_default(),
            headers: self.headers.clone(),
            auth,
        })
    }
}

/// Puts a new secret in front. The one before it signs until `until`, where that is not over; those before that until their own ends.
pub fn rotate(before: &DestinationSecrets, new: Secret, now: Timestamp, until: Timestamp) -> DestinationSecrets {
    let last = PreviousSecret { secret: before.current.clone(), expires_at: until };
    let mut previous: Vec<_> = std::iter::once(&last)
        .chain(&before.previous)
        .filter(|previous| previous.expires_at > now && previous.secret != new)
        .cloned()
        .collect();
    previous.truncate(MAX_PREVIOUS);
    DestinationSecrets { current: new, previous, ..before.clone() }
}

/// Puts the values that are there in the place of `***`, which answers show instead of them. A name that has none keeps its `***`, and is refused
/// when it is read.
pub fn unmask(document: &mut Map<String, Value>, before: &DestinationSecrets) {
    let Some(headers) = document.get_mut("headers").and_then(Value::as_object_mut) else { return };
    for (name, value) in headers.iter_mut().filter(|(_, value)| value.as_str() == Some(MASK)) {
        let there = before.headers.iter().find(|(there, _)| there.eq_ignore_ascii_case(name));
        if let Some((_, there)) = there {
            *value = Value::from(there.reveal());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_what_still_signs() {
        let at = Timestamp::from_micros;
        let previous = |text: &str, until| PreviousSecret { secret: Secret::new(text), expires_at: at(until) };
        let mut before = DestinationSecrets::signing(Secret::new("c"));
        before.previous = vec![previous("b", 20), previous("a", 10)];
        let after = rotate(&before, Secret::new("d"), at(10), at(30));
        assert_eq!((after.current, after.previous), (Secret::new("d"), vec![previous("c", 30), previous("b", 20)]));
        let at_once = rotate(&before, Secret::new("d"), at(10), at(10));
        assert_eq!(at_once.previous, [previous("b", 20)]);
        let back = rotate(&before, Secret::new("b"), at(0), at(30));
        assert_eq!(back.previous, [previous("c", 30), previous("a", 10)]);
        before.previous = (0..20).map(|n| previous(&n.to_string(), 20)).collect();
        assert_eq!(rotate(&before, Secret::new("d"), at(0), at(30)).previous.len(), MAX_PREVIOUS);
    }
}
