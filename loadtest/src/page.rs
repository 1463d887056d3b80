//! A report as one HTML page that needs nothing else: its table and its plots.

use std::fmt::Write as _;

use crate::report::{Report, number};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;border-bottom:1px solid #ddd}\
td.value{text-align:right;font-variant-numeric:tabular-nums}td.broken{color:#b00020;font-weight:600}\
svg{max-width:100%;height:auto}code{white-space:pre-wrap;overflow-wrap:anywhere}";

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let title = format!("{} ({})", report.scenario, report.deployment);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n<p><code>{}</code>\n",
        escaped(&report.settings.to_string())
    );
    if let Some(conditions) = &report.conditions {
        writeln!(html, "<p>{}", escaped(&conditions.to_string()))?;
    }
    html.push_str("<table>\n<tr><th>figure<th>value<th>bound<th>\n");
    for figure in &report.figures {
        let (class, verdict) = match figure.holds {
            None => ("", ""),
            Some(true) => ("", "holds"),
            Some(false) => (" class=\"broken\"", "broken"),
        };
        writeln!(
            html,
            "<tr><td>{}<td class=\"value\">{} {}<td>{}<td{class}>{verdict}",
            escaped(&figure.name),
            number(figure.value),
            escaped(figure.unit),
            escaped(figure.bound.as_deref().unwrap_or_default()),
        )?;
    }
    html.push_str("</table>\n");
    for remark in &report.remarks {
        writeln!(html, "<p>{}", escaped(remark))?;
    }
    for plot in &report.plots {
        writeln!(html, "<h2>{}</h2>\n{}", escaped(plot.title), plot.svg()?)?;
    }
    html.push_str("</html>\n");
    Ok(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use crate::{conditions::Conditions, page::page, plot::Plot, report::Report};

    #[test]
    fn a_page_has_the_figures_and_the_plots_and_needs_nothing_else() {
        let mut report = Report::new("test", "standalone", json!({"what": "<b>"}));
        report.at_most("p99 < all", 12.0, "ms", 10.0);
        report.plot(Plot::over_time("Throughput", "each second").line("events", vec![[0.0, 1.0], [1.0, 2.0]]));
        report.conditions = Some(Conditions { cpu: Some("a <b> CPU".to_owned()), ..Conditions::default() });
        report.remark("not judged");
        let html = page(&report).unwrap();
        for part in [
            "<p>1970-01-01T00:00:00Z",
            "a &lt;b&gt; CPU",
            "<p>not judged",
            "p99 &lt; all",
            "12 ms",
            "broken",
            "&lt;b&gt;",
            "<h2>Throughput</h2>",
            "<svg",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("src="), "{html}");
    }
}
