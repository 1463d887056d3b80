//! The events of a load: orders of a shop, no two alike, each with the number by which it is found again in what arrives.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::chance::mixed;

/// The member of `data` that is the number. `data` is forwarded byte for byte, so it stands there in what arrives, too.
const NAME: &str = "loadtest_number";

/// `data` of about that many bytes.
pub fn data(number: u64, bytes: usize) -> String {
    let mut text = format!("{{\"{NAME}\":{number}");
    let order = mixed(number);
    if text.len() + 120 <= bytes {
        text.push_str(&format!(
            ",\"order\":\"ord_{order:016x}\",\"currency\":\"EUR\",\"total_cents\":{},\"customer\":{{\"id\":{}}}",
            order % 100_000,
            order % 7_919
        ));
    }
    if text.len() + 60 <= bytes {
        text.push_str(",\"items\":[");
        let mut line = 0;
        while text.len() + 52 <= bytes {
            let item = mixed(order ^ line);
            let comma = if line == 0 { "" } else { "," };
            text.push_str(&format!(
                "{comma}{{\"sku\":\"{:08x}\",\"n\":{},\"cents\":{}}}",
                item >> 32,
                item % 9 + 1,
                item % 9_973
            ));
            line += 1;
        }
        text.push(']');
    }
    text.push('}');
    text
}

/// An event as it is posted.
pub fn event(event_type: &str, ordering_key: Option<&str>, data: &str) -> String {
    let key = ordering_key.map(|key| format!("\"ordering_key\":{},", Value::from(key))).unwrap_or_default();
    format!("{{\"type\":{},{key}\"data\":{data}}}", Value::from(event_type))
}

/// Events as a batch.
pub fn batch(events: &[String]) -> String {
    format!("{{\"events\":[{}]}}", events.join(","))
}

/// Where the digits of the number stand in a body: after the mark, also where the body holds it as a string with its quotes
/// escaped.
pub fn number_at(body: &[u8]) -> Option<usize> {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
    let after = FINDER.find(body)? + NAME.len();
    let gap = body[after..].iter().take(8).position(u8::is_ascii_digit)?;
    body[after..after + gap].iter().all(|byte| b"\\\": ".contains(byte)).then_some(after + gap)
}

/// The number in a body that arrived.
pub fn number_in(body: &[u8]) -> Option<u64> {
    let digits = body[number_at(body)?..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.into_iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// A retry policy that is quick and patient: what a fault test wants.
pub fn patient_retry() -> Value {
    json!({"strategy": "exponential", "initial_ms": 50, "factor": 1.5, "max_ms": 2000, "max_attempts": 100, "jitter": 0.2})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::Value;

    #[test]
    fn an_event_is_json_of_about_the_size_and_its_number_is_found() {
        for bytes in [20, 200, 500, 2_000, 50_000] {
            let data = super::data(12_345, bytes);
            let event = super::event("load.\"x\"", Some("key \" 1"), &data);
            let parsed: Value = serde_json::from_str(&event).unwrap();
            assert_eq!(parsed["type"], "load.\"x\"");
            assert_eq!(parsed["ordering_key"], "key \" 1");
            assert_eq!(super::number_in(event.as_bytes()), Some(12_345));
            assert!(data.len() <= bytes.max(30) && data.len() * 2 > bytes, "{bytes}: {}", data.len());
        }
        assert_eq!(super::number_in(b"{}"), None);
        assert_eq!(super::number_in(b"{\"loadtest_number\":}"), None);
        assert_eq!(super::number_in(b"{\"loadtest_number\":null,\"n\":1}"), None);
        assert_eq!(super::number_in(br#"{"payload":"{\"loadtest_number\": 77}"}"#), Some(77));
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(super::data(1, 500)[30..], super::data(2, 500)[30..]);
    }
}
