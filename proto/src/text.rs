//! Text that comes from afar is data: before a person sees it, on a terminal or in a log, it is cleaned here.

use alloc::string::String;

/// `text` without control and bidirectional characters, cut after `cap` bytes (at a character's boundary, marked by `…`).
///
/// Each run of removed characters becomes one space, so that words do not run together. Escape sequences lose their
/// first byte and with it their effect.
#[must_use]
pub fn clean(text: &str, cap: usize) -> String {
    let mut out = String::with_capacity(text.len().min(cap));
    for c in text.chars() {
        let c = if is_unsafe(c) { ' ' } else { c };
        if c == ' ' && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        if out.len() + c.len_utf8() > cap {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out.truncate(out.trim_end().len());
    out
}

/// Characters that can change what a terminal does or in which order it shows what follows: C0 and C1 controls, the
/// line and paragraph separators, the bidirectional controls (Unicode UAX 9, section 2), the invisible tags, the zero-width
/// space, the soft hyphen, which is seen only where a line breaks, and the byte-order mark. Not the joiners (U+200C, U+200D): they do
/// neither, and words of Persian and emoji families are written with them (Unicode Standard, section 23.2).
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::clean;

    fn check(text: &str, cap: usize, expected: &str) {
        assert_eq!(clean(text, cap), expected);
    }

    #[test]
    fn cleaning() {
        check("plain text", 100, "plain text");
        check("a\x1b[31mred\x07", 100, "a [31mred");
        check("two\r\nlines\n", 100, "two lines");
        check("right\u{202e}to left\u{2066}", 100, "right to left");
        check("äöü", 4, "äö…");
        check("می\u{200c}خواهم 👨\u{200d}👧\u{200b}", 100, "می\u{200c}خواهم 👨\u{200d}👧");
        check("pass\u{ad}word", 100, "pass word");
        check("", 4, "");
    }
}
