use super::*;

fn sink(most: u64) -> (Sink, mpsc::Receiver<Line>) {
    let (lines, receiver) = mpsc::channel(100);
    (Sink { lines, left: most, stop: Stopper::default() }, receiver)
}

fn told(mut lines: mpsc::Receiver<Line>) -> Vec<(u64, Result<String, String>)> {
    std::iter::from_fn(|| lines.try_recv().ok()).map(|line| (line.number, line.event)).collect()
}

fn ndjson(text: &str, event_type: Option<&str>) -> Vec<(u64, Result<String, String>)> {
    let (sink, lines) = sink(u64::MAX);
    ndjson::read(text.as_bytes(), event_type, "a file", sink);
    told(lines)
}

fn csv(text: &[u8], uid: Option<&str>) -> Vec<(u64, Result<String, String>)> {
    let (sink, lines) = sink(u64::MAX);
    csv_lines::read(text, Some("a.b"), uid, "a file", &AtomicU64::new(0), sink);
    told(lines)
}

#[test]
fn ndjson_lines_go_on_as_they_were_written() {
    let line = r#"{ "type":"a.b",  "data": {"n": 1.00, "n": 2e400} }"#;
    assert_eq!(ndjson(&format!("\u{feff}{line}\r\n\n{line}"), None), [(1, Ok(line.into())), (3, Ok(line.into()))]);
}

#[test]
fn a_missing_type_is_filled_in_and_nothing_else_is_touched() {
    let lines = ndjson("{\"data\":1.0}\n{\"type\":\"x\",\"data\":1}\n{\"data_base64\":\"AA==\"}", Some("a.b"));
    let events: Vec<_> = lines.into_iter().map(|(_, event)| event.unwrap()).collect();
    assert_eq!(
        events,
        [r#"{"type":"a.b","data":1.0}"#, r#"{"type":"x","data":1}"#, r#"{"type":"a.b","data_base64":"AA=="}"#]
    );
}

#[test]
fn broken_ndjson_lines_are_told_with_their_number_and_the_rest_goes_on() {
    let text =
        "{\"type\":\"a\",\"data\":1}\n{\"type\":\n[1]\n{\"type\":\"a\"}\n{\"data\":1}\n{\"type\":\"a\",\"data\":2}";
    let lines = ndjson(text, None);
    let wrong: Vec<_> = lines.iter().filter_map(|(n, event)| Some((*n, event.as_ref().err()?.as_str()))).collect();
    assert_eq!(
        wrong,
        [
            (2, "not JSON: EOF while parsing a value at column 8"),
            (3, "not a JSON object"),
            (4, "has no `data`"),
            (5, "has no `type` (or give --type)"),
        ]
    );
    assert_eq!(lines.len(), 6);
}

#[test]
fn csv_columns_become_data_and_a_column_the_uid() {
    let lines = csv(b"id,amount,note\np-1,007,\"a \"\"b\"\", c\nd\"\np-2,1.50,\n", Some("id"));
    assert_eq!(
        lines,
        [
            (2, Ok(r#"{"type":"a.b","uid":"p-1","data":{"id":"p-1","amount":"007","note":"a \"b\", c\nd"}}"#.into())),
            (4, Ok(r#"{"type":"a.b","uid":"p-2","data":{"id":"p-2","amount":"1.50","note":""}}"#.into())),
        ]
    );
}

#[test]
fn broken_csv_lines_are_told_with_their_number() {
    let lines = csv(b"id,amount\n1,2\n3\n4,5,6\n\xff,7\n,8\n9,10\n", Some("id"));
    let wrong: Vec<_> = lines.iter().filter_map(|(n, event)| Some((*n, event.as_ref().err()?.as_str()))).collect();
    assert_eq!(
        wrong,
        [
            (3, "has 1 fields, the first line has 2"),
            (4, "has 3 fields, the first line has 2"),
            (5, "field `id` is not UTF-8"),
            (6, "the column of the uid is empty"),
        ]
    );
    assert_eq!(lines.len(), 6);
}

#[test]
fn a_csv_without_the_wanted_column_sends_nothing() {
    let lines = csv(b"id,amount\n1,2\n", Some("uid"));
    assert_eq!(lines, [(1, Err("cannot read a file: there is no column `uid` (there are: id, amount)".into()))]);
    let lines = csv(b"id,id\n1,2\n", None);
    assert_eq!(lines, [(1, Err("cannot read a file: two columns are named `id`".into()))]);
}

#[test]
fn csv_lines_have_their_number_whatever_ends_them() {
    for (text, numbers) in [
        ("id\n1\n2\n3", &[2, 3, 4][..]),
        ("id\r\n1\r\n2\r\n3\r\n", &[2, 3, 4]),
        ("\u{feff}id\r\n1\r\n", &[2]),
        ("\r\n\nid\n\n1\n\r\n\n2\n", &[5, 8]),
        ("id\r\n\"a\r\nb\"\r\n\"\r\n\r\n\"\r\n2\r\n", &[2, 4, 7]),
    ] {
        let lines = csv(text.as_bytes(), None);
        assert_eq!(lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers, "{text:?}");
        assert!(lines.iter().all(|(_, event)| event.is_ok()), "{lines:?}");
    }
    // More than the reader takes at once.
    let text: String = (0..20_000).map(|n| format!("{n},\"a \"\"b\"\"\r\n\"\r\n")).collect();
    let (sink, mut lines) = sink(u64::MAX);
    let reading = std::thread::spawn(move || {
        csv_lines::read(format!("id,note\r\n{text}").as_bytes(), Some("a"), None, "a file", &AtomicU64::new(0), sink);
    });
    for number in (2..).step_by(2).take(20_000) {
        let line = lines.blocking_recv().unwrap();
        assert!((line.number, line.event.is_ok()) == (number, true), "{number}: {line:?}");
    }
    assert_eq!(lines.blocking_recv(), None);
    reading.join().unwrap();
}

#[test]
fn a_csv_that_ends_within_quotes_is_told() {
    const OPEN: &str = "a quote is opened and never closed: all that follows is within it";
    for (text, good, open) in [
        ("a,b\n1,2\n3,\"4\n5,6\n7,8\n", 1, Some(3)),
        ("a,b\r\n1,2\r\n3,\"4 \"\"x\"\"", 1, Some(3)),
        ("a\n\"\"\"", 0, Some(2)),
        ("a,b\n1,\"\n", 0, Some(2)),
        ("a,b\n1,\"2\"", 1, None),
        ("a,b\n1,\"2\"\"\"\n", 1, None),
        ("a,b\n1,2\"\n3,4\"4\n\"5\"5\",6", 3, None),
    ] {
        let lines = csv(text.as_bytes(), None);
        assert_eq!(lines.iter().filter(|(_, event)| event.is_ok()).count(), good, "{text:?}: {lines:?}");
        let broken: Vec<_> = lines.iter().filter_map(|(n, event)| Some((*n, event.as_ref().err()?.as_str()))).collect();
        assert_eq!(broken, open.map(|line| (line, OPEN)).into_iter().collect::<Vec<_>>(), "{text:?}");
    }
    let lines = csv(b"a,\"b\n1,2\n", None);
    assert_eq!(lines, [(1, Err(format!("cannot read a file: {OPEN}")))]);
}

#[tokio::test]
async fn who_waits_for_a_line_is_told_to_stop() {
    let (sink, lines) = sink(u64::MAX);
    let mut items = Items { lines, stop: sink.stop.clone() };
    let stopper = items.stopper();
    let (line, ()) = tokio::join!(items.next(), async {
        tokio::task::yield_now().await;
        stopper.stop();
    });
    assert_eq!((line, items.was_stopped()), (None, true));
    drop(sink);
}

#[test]
fn no_more_than_wanted_is_read() {
    let (sink, lines) = sink(2);
    ndjson::read("{\"data\":1}\n{\"data\":2}\n{\"data\":3}\n".as_bytes(), Some("a"), "a file", sink);
    assert_eq!(told(lines).len(), 2);
}
