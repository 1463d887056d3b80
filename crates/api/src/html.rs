//! The few pages for people. They load nothing from elsewhere, and what they may do is said in one policy.

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a page of ours may do: its own script and style, and ask this server.
pub const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors \
         'none'; base-uri 'none'; form-action 'none'",
    ),
);

const STYLE: &str = "\
:root { color-scheme: light dark; --soft: #8881; --dim: #777 }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 12vh auto 4rem; padding: 0 1.2rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem }
.dim { color: var(--dim) }
code { font: .9em ui-monospace, monospace; background: var(--soft); padding: .1em .35em; border-radius: 4px }
a { color: light-dark(#1f5fbf, #82b1ff) }
nav { display: flex; gap: 1.5rem; margin-top: 2rem }
";

/// Whether it is a browser that asks.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// A page with this title, which is text, and this content, which is HTML.
pub fn page(title: &str, main: &str) -> Response {
    let title = escape(title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} · Signalpost</title>\n\
         <style>\n{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n{main}</main></body></html>\n"
    );
    ([POLICY], Html(page)).into_response()
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
