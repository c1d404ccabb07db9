//! Durations in attributes: an integer followed by a unit.

const DAY: u64 = 24 * 60 * 60 * 1000;

/// The longest duration: a hundred years.
const LONGEST: u64 = 36_500 * DAY;

/// Parses a text such as `30s` to milliseconds. The error says what is wrong, as the rest of a sentence about the text.
pub(crate) fn millis(text: &str) -> Result<u64, &'static str> {
    const MALFORMED: &str = "must be an integer followed by `ms`, `s`, `m`, `h` or `d`, such as \"30s\"";

    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = text.strip_suffix(unit).filter(|digits| !digits.is_empty()).ok_or(MALFORMED)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => DAY,
        _ => return Err(MALFORMED),
    };
    // These are only digits, so a number that doesn't parse is too large.
    let millis = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    match millis {
        Some(0) => Err("can't be zero"),
        Some(millis) if millis <= LONGEST => Ok(millis),
        _ => Err("can be at most \"36500d\""),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, millis};

    #[test]
    fn reads_each_unit() {
        assert_eq!(millis("1ms"), Ok(1));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("2h"), Ok(7_200_000));
        assert_eq!(millis("1d"), Ok(86_400_000));
        assert_eq!(millis("0030s"), Ok(30_000));
        assert_eq!(millis("36500d"), Ok(LONGEST));
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "30", "s", " 30s", "30 s", "30S", "-30s", "+30s", "1.5s", "1h30m", "30sec", "30µs", "٣s"] {
            assert!(millis(text).is_err_and(|mistake| mistake.contains("integer")), "{text}");
        }
        for text in ["0s", "0ms", "000d"] {
            assert!(millis(text).is_err_and(|mistake| mistake.contains("zero")), "{text}");
        }
        for text in ["36501d", "18446744073709551615ms", "18446744073709551616ms", "18446744073709551615d"] {
            assert!(millis(text).is_err_and(|mistake| mistake.contains("at most")), "{text}");
        }
    }
}
