//! Against fixed vectors, and against Python itself.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::sorted_keys;

/// What Python 3.11 made of these.
const VECTORS: &[(&str, &str)] = &[
    (r#"{"b":1,"a":2}"#, r#"{"a": 2, "b": 1}"#),
    (r#" [ 1 , { } , [ ] , "" ] "#, r#"[1, {}, [], ""]"#),
    (r#"{"a":1,"a":{"z":0,"y":[]},"A":null}"#, r#"{"A": null, "a": {"y": [], "z": 0}}"#),
    (r#"{"ä":"é€","a":"\u007f/\/"}"#, r#"{"a": "\u007f//", "\u00e4": "\u00e9\u20ac"}"#),
    (r#""\u0000\u001f\b\f\n\r\t\"\\ 😀""#, r#""\u0000\u001f\b\f\n\r\t\"\\ \ud83d\ude00""#),
    (r#"{"\ud83d\ude00":1,"\ud83d":2,"\uffff":3}"#, r#"{"\ud83d": 2, "\uffff": 3, "\ud83d\ude00": 1}"#),
    (r#""\ud800\u0041\udc00\uD83D\uDE00""#, r#""\ud800A\udc00\ud83d\ude00""#),
    (r#""\ud83d\n\ud83d\ud83d\ude00""#, r#""\ud83d\n\ud83d\ud83d\ude00""#),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("[-0,0,-0.0,0.0,-0e5,1E2,1e2,100.0]", "[0, 0, -0.0, 0.0, -0.0, 100.0, 100.0, 100.0]"),
    (
        "[1e15,1e16,123456789012345680.0,9007199254740993.0]",
        "[1000000000000000.0, 1e+16, 1.2345678901234568e+17, 9007199254740992.0]",
    ),
    ("[0.0001,0.00001,1.5e-7,0.1,2.50]", "[0.0001, 1e-05, 1.5e-07, 0.1, 2.5]"),
    ("[5e-324,1e-400,-1e-400,1.7976931348623157e308]", "[5e-324, 0.0, -0.0, 1.7976931348623157e+308]"),
    ("[1e400,-1e400]", "[Infinity, -Infinity]"),
    (
        "[1.00000000000000011102230246251566,0.30000000000000004,2e-3]",
        "[1.0000000000000002, 0.30000000000000004, 0.002]",
    ),
    ("[733434534307733259e-3,9007199254740993e-1]", "[733434534307733.2, 900719925474099.2]"),
    ("[true,false,null]", "[true, false, null]"),
];

#[test]
fn vectors() {
    for (body, expected) in VECTORS {
        assert_eq!(sorted_keys(body.as_bytes()).as_deref(), Some(*expected), "{body}");
    }
}

#[test]
fn what_is_not_json_is_told() {
    let bad = [
        "",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "nul",
        "nullx",
        "\"a",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\\u12\"",
        "1 2",
        "NaN",
        "Infinity",
        "'a'",
        "\u{feff}1",
    ];
    for bad in bad {
        assert_eq!(sorted_keys(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(sorted_keys(b"\"\xff\""), None);
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(sorted_keys(nested(super::MAX_DEPTH).as_bytes()).is_some());
    assert_eq!(sorted_keys(nested(super::MAX_DEPTH + 1).as_bytes()), None);
}

/// Every document of `bodies` as Python writes it; None where there is no Python. Where tests run for everyone (`CI` is set), there must be one.
fn python(bodies: &[String]) -> Option<Vec<String>> {
    let script = "import json,sys\nfor line in sys.stdin:\n print(json.dumps(json.loads(line), sort_keys=True))";
    let child = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("python3 is not there ({error}): compared with fixed vectors alone");
            return None;
        }
        Err(error) => panic!("python3 is needed: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let lines = bodies.join("\n");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

fn check(bodies: &[String]) {
    if let Some(written) = python(bodies) {
        assert_eq!(written.len(), bodies.len());
        for (body, written) in bodies.iter().zip(written) {
            assert_eq!(sorted_keys(body.as_bytes()), Some(written), "{body}");
        }
    }
}

#[test]
fn python_writes_the_vectors_so() {
    check(&VECTORS.iter().map(|(body, _)| (*body).to_owned()).collect::<Vec<_>>());
}

/// Characters of which escapes, surrogates and borders of UTF-8's lengths are many.
fn strings() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_filter("as it is", |c| !matches!(c, '"' | '\\' | '\0'..='\u{1f}')).prop_map(String::from),
        prop::sample::select(vec![
            "\\n", "\\/", "\\\"", "\\\\", "\\ud83d", "\\ude00", "\\uD800", "\\udfff", "\\u0000", "a"
        ])
        .prop_map(str::to_owned),
        any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
    ];
    // Python cuts lines at none of these, as `sys.stdin` knows `\n` alone; but `\r` is one for it.
    prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        (-30_i32..30, any::<i32>()).prop_map(|(exponent, digits)| format!("{digits}e{exponent}")),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
    ]
}

fn documents() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![strings(), numbers(), Just("null".to_owned()), Just("true".to_owned())];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((strings(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(" ,"))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// A process of Python per case, so that each holds many documents.
    #[test]
    fn python_writes_any_document_so(bodies in prop::collection::vec(documents(), 500)) {
        check(&bodies);
    }

    #[test]
    fn what_was_written_is_written_again(body in documents()) {
        let once = sorted_keys(body.as_bytes()).unwrap();
        if !once.contains("Infinity") {
            prop_assert_eq!(sorted_keys(once.as_bytes()), Some(once));
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        sorted_keys(&bytes);
    }
}
