//! What every page that the node writes itself has in common: its head, a plain look, and text that stays text.

use std::fmt;

/// Colours as on the pages of the default document root; system fonts, and nothing from elsewhere.
const STYLE: &str = "\
:root{color-scheme:light dark;--page:#f7f6f2;--ink:#1c2024;--quiet:#535c65;--line:#dedcd5;--accent:#0b5c7a}\
@media(prefers-color-scheme:dark){:root{--page:#14181b;--ink:#e6e8ea;--quiet:#a9b2ba;--line:#30373d;--accent:#6cc4e6}}\
body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:50rem;padding:0 1.5rem;\
background:var(--page);color:var(--ink)}\
h1{line-height:1.2;overflow-wrap:anywhere}p{overflow-wrap:anywhere}a{color:var(--accent)}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.4rem 0 .4rem 1.5rem;white-space:nowrap;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{padding-left:0;white-space:normal;overflow-wrap:anywhere;width:100%}\
th:nth-child(2),td:nth-child(2){text-align:right;font-variant-numeric:tabular-nums}\
td:nth-child(n+2){color:var(--quiet)}\
@media(max-width:30rem){body{margin:1rem auto;padding:0 1rem}th,td{padding-left:.75rem}td:nth-child(3){white-space:normal}}";

/// The beginning of a page, up to and with its heading.
pub(super) fn head(title: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main><h1>{title}</h1>"
    )
}

/// The end of a page.
pub(super) const END: &str = "</main></body></html>\n";

/// Text that is safe between HTML tags and in quoted attributes.
pub(crate) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['&', '<', '>', '"', '\'']) {
            let special = part.char_indices().next_back();
            let entity = match special {
                Some((_, '&')) => "&amp;",
                Some((_, '<')) => "&lt;",
                Some((_, '>')) => "&gt;",
                Some((_, '"')) => "&quot;",
                Some((_, '\'')) => "&#39;",
                _ => {
                    f.write_str(part)?;
                    continue;
                }
            };
            f.write_str(part.get(..part.len() - 1).unwrap_or_default())?;
            f.write_str(entity)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped() {
        assert_eq!(Escaped("a<b>&\"c'd").to_string(), "a&lt;b&gt;&amp;&quot;c&#39;d");
        assert_eq!(Escaped("é").to_string(), "é");
        assert!(head("<x>").contains("<title>&lt;x&gt;</title>"));
        assert!(head("<x>").ends_with("<h1>&lt;x&gt;</h1>"));
    }
}
