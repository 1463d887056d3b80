use super::*;

fn sink(most: u64) -> (Sink, mpsc::Receiver<Line>) {
    let (lines, receiver) = mpsc::channel(100);
    (Sink { lines, left: most, stop: Stopper(Arc::default()) }, receiver)
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
fn no_more_than_wanted_is_read() {
    let (sink, lines) = sink(2);
    ndjson::read("{\"data\":1}\n{\"data\":2}\n{\"data\":3}\n".as_bytes(), Some("a"), "a file", sink);
    assert_eq!(told(lines).len(), 2);
}
