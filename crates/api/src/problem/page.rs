//! `/problems/{code}`: the page that a problem's `type` points to.

use axum::{extract::Path, response::Response};

use super::{Code, Problem};
use crate::html;

/// Explains a code in a few words.
pub async fn explain(Path(name): Path<String>) -> Result<Response, Problem> {
    let code = Code::from_name(&name).ok_or_else(|| Problem::not_found("problem"))?;
    let main = format!(
        "<p class=\"dim\"><code>{name}</code> · HTTP {status}</p>\n<p>{help}</p>\n\
         <nav><a href=\"/docs\">API</a></nav>\n",
        name = code.as_str(),
        status = code.status(),
        help = with_code(code.help()),
    );
    Ok(html::page(code.title(), &main))
}

/// Text as HTML; what stands in single quotes is code.
fn with_code(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for (index, part) in html::escape(text).split('\'').enumerate() {
        let tag = match index {
            0 => "",
            odd if odd % 2 == 1 => "<code>",
            _ => "</code>",
        };
        out.push_str(tag);
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_code() {
        assert_eq!(with_code("Send 'a: <b>' now."), "Send <code>a: &lt;b&gt;</code> now.");
        for code in Code::ALL {
            assert!(code.help().matches('\'').count().is_multiple_of(2), "{}", code.as_str());
        }
    }
}
