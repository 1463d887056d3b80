//! The events of a load: orders of a shop, no two alike, each with the number by which it is found again in what arrives.

use serde_json::{Value, json};

use crate::chance::mixed;

/// What stands before the number in `data`. `data` is forwarded byte for byte, so it stands there in what arrives, too.
const MARK: &str = "\"loadtest_number\":";

/// `data` of about that many bytes.
pub fn data(number: u64, bytes: usize) -> String {
    let mut text = format!("{{{MARK}{number}");
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

/// The number in a body that arrived.
pub fn number_in(body: &[u8]) -> Option<u64> {
    let mark = MARK.as_bytes();
    let at = body.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut number: Option<u64> = None;
    for digit in digits {
        number = number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit - b'0')).map(Some)?;
    }
    number
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
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(super::data(1, 500)[30..], super::data(2, 500)[30..]);
    }
}
