//! The inbox as a page. Everything that came from outside is escaped; the page loads nothing from elsewhere.

use std::{fmt::Write as _, sync::Arc};

use signalpost_receiver::Verdict;

use super::Entry;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Signalpost inbox</title>
<style>
:root { color-scheme: light dark; --line: #8884; --ok: #1a7f37; --bad: #cf222e; --dim: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem } p { color: var(--dim); margin: 0 0 1.2rem }
details { border-top: 1px solid var(--line); padding: .45rem 0 }
summary { cursor: pointer; display: flex; gap: 1rem; align-items: baseline; list-style: none }
summary b { font-weight: 600 } summary span { color: var(--dim) } summary .id { flex: 1; overflow: hidden; text-overflow: ellipsis }
.ok { color: var(--ok) !important } .bad { color: var(--bad) !important; font-weight: 600 }
pre { font: 13px/1.5 ui-monospace, monospace; background: #8881; padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; margin: .5rem 0 }
</style></head><body>
<h1>Inbox</h1>
<p>The last 100 requests that came to this path, newest first. Their signatures are judged with the secrets of the
destinations that point here. As JSON: <code>curl</code> this address.</p>
<main>
"#;

/// Asks for the page again and puts in what is new; what was opened stays open.
const TAIL: &str = r#"</main>
<script>
setInterval(async () => {
  try {
    const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main');
    const main = document.querySelector('main');
    const newest = (m) => m.firstElementChild && m.firstElementChild.id;
    if (newest(fresh) === newest(main)) return;
    for (const open of main.querySelectorAll('details[open]')) {
      const same = fresh.querySelector('#' + open.id);
      if (same) same.open = true;
    }
    main.replaceWith(fresh);
  } catch { /* it is not running just now */ }
}, 1000);
</script></body></html>
"#;

/// The whole page.
pub fn render(entries: &[Arc<Entry>]) -> String {
    let mut page = String::from(HEAD);
    if entries.is_empty() {
        page.push_str("<p>Nothing has come since this start.</p>\n");
    }
    for entry in entries {
        request(&mut page, entry);
    }
    page.push_str(TAIL);
    page
}

fn request(page: &mut String, entry: &Entry) {
    let (class, verdict) = match &entry.verdict {
        Verdict::Valid => ("ok", "signature ok".to_owned()),
        Verdict::Invalid(why) => ("bad", format!("signature wrong: {why}")),
        Verdict::Unchecked => ("", "not checked: no destination points here".to_owned()),
    };
    let event_type = entry.header("signalpost-event-type");
    let title = if event_type.is_empty() { entry.path.as_str() } else { event_type };
    let attempt = match entry.header("signalpost-attempt") {
        "" | "1" => String::new(),
        number => format!("attempt {number}"),
    };
    let mut headers = format!("{} {}\n", entry.method, entry.path);
    for (name, value) in &entry.headers {
        let _never = writeln!(headers, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    // Writing to a text cannot fail.
    let _never = write!(
        page,
        "<details id=\"r{}\"><summary><b>{}</b><span class=\"id\">{}</span><span>{}</span><span class=\"{class}\">{}</span><span>{}</span></summary>\n<pre>{}</pre>\n<pre>{}</pre></details>\n",
        entry.number,
        escape(title),
        escape(entry.header("webhook-id")),
        escape(&attempt),
        escape(&verdict),
        escape(time_of_day(&entry.at.to_string())),
        escape(&headers),
        escape(&readable(&entry.body)),
    );
}

/// The time to the second, in UTC.
fn time_of_day(rfc3339: &str) -> &str {
    rfc3339.get(11..19).unwrap_or(rfc3339)
}

/// JSON with indents, in the order of its members and with numbers as written; anything else as it is.
fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = rest.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                while rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ if character.is_ascii_whitespace() => {}
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, Method};
    use signalpost_core::Timestamp;

    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_kept() {
        let body = br#"{"b":1.00,"a":[{},[],"x\"{,:\\"],"b":2e400}"#;
        let expected = "{\n  \"b\": 1.00,\n  \"a\": [\n    {},\n    [],\n    \"x\\\"{,:\\\\\"\n  ],\n  \"b\": 2e400\n}";
        assert_eq!(readable(body), expected);
        assert_eq!(readable(b"{not json,"), "{not json,");
    }

    #[test]
    fn what_came_from_outside_is_escaped() {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "<script>1</script>".parse().unwrap());
        headers.insert("signalpost-event-type", "\"><img src=x>".parse().unwrap());
        let entry = Entry {
            number: 1,
            at: Timestamp::from_millis(1_700_000_000_000),
            method: Method::POST,
            path: "/dev/inbox".to_owned(),
            headers,
            body: "<u>&'".into(),
            verdict: Verdict::Invalid("<i>".to_owned()),
        };
        let page = render(&[Arc::new(entry)]);
        let main = page.split("<main>").nth(1).unwrap().split("</main>").next().unwrap();
        for tag in ["<script", "<img", "<u>", "<i>"] {
            assert!(!main.contains(tag), "{tag} in {main}");
        }
        assert!(main.contains("&lt;u&gt;&amp;&#39;") && main.contains("22:13:20"));
    }
}
