//! Numbers in fields. One that is too large to hold is a large one, not none: who wrote it meant more than we can count.

/// Decimal digits and nothing else; what is beyond counting is the largest number there is.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn digits_alone_are_a_number_however_many() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
