//! What the benches work on: JSON of the shape of an order, the same at every run.

use std::fmt::Write as _;

/// The sizes of `data`, in bytes, by their names in the results: the usual, a large and a very large event.
pub const SIZES: [(&str, usize); 3] = [("0.5kB", 500), ("7kB", 7_000), ("50kB", 50_000)];

/// An order of at least `bytes` bytes and at most one line more: nested, with numbers, escapes and letters beyond ASCII. The
/// names of its members are in no order.
pub fn order(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 200);
    text.push_str(
        r#"{"order_id":"ord_7f3a91c0","customer":{"name":"Zoë Müller","email":"zoe@example.com","vip":false},"currency":"EUR","lines":["#,
    );
    let end = r#"],"note":"Leave it \"at the door\"\nplease","total":129.95,"coupon":null}"#;
    let mut number = 0;
    while number == 0 || text.len() + end.len() < bytes {
        if number > 0 {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{{"sku":"SKU-{number:05}","title":"Tea pot, blue","quantity":{},"price":{}.95,"tags":["kitchen","gift"]}}"#,
            number % 7 + 1,
            number % 90 + 10
        );
        number += 1;
    }
    text.push_str(end);
    text
}

/// The body of an event in our own JSON, around an [`order`].
pub fn event(bytes: usize) -> String {
    format!(
        r#"{{"type":"order.created","uid":"ord_7f3a91c0-1","source":"shop","occurred_at":"2026-01-02T03:04:05Z","ordering_key":"customer-81","labels":{{"region":"eu"}},"data":{}}}"#,
        order(bytes)
    )
}

/// The body of a CloudEvent in structured mode, around an [`order`].
pub fn cloud_event(bytes: usize) -> String {
    format!(
        r#"{{"specversion":"1.0","type":"order.created","id":"ord_7f3a91c0-1","source":"/shop","time":"2026-01-02T03:04:05Z","subject":"ord_7f3a91c0","partitionkey":"customer-81","datacontenttype":"application/json","data":{}}}"#,
        order(bytes)
    )
}

/// The body of a batch of so many events of that size.
pub fn batch(events: usize, bytes: usize) -> String {
    format!(r#"{{"events":[{}]}}"#, vec![event(bytes); events].join(","))
}
