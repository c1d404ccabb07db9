//! The known name that is closest to a misspelled one.

/// The nearest name, unless more than a third of the letters would have to change.
pub(crate) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = known.iter().map(|name| (distance(typed, name), *name)).min()?;
    let letters = typed.chars().count().max(name.len());
    (3 * distance <= letters.max(3)).then_some(name)
}

/// The number of letters to insert, delete, replace or swap with their neighbour to turn one text into the other: the
/// Damerau-Levenshtein distance, with adjacent swaps only.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut table = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let is_same = from[i - 1] == to[j - 1];
                let is_swap = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                let replaced = table[i - 1][j - 1] + usize::from(!is_same);
                let swapped = if is_swap { table[i - 2][j - 2] + 1 } else { replaced };
                replaced.min(swapped).min(table[i - 1][j] + 1).min(table[i][j - 1] + 1)
            };
        }
    }
    table[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn counts_the_letters_that_differ() {
        assert_eq!(distance("ttl", "ttl"), 0);
        assert_eq!(distance("tll", "ttl"), 1);
        assert_eq!(distance("", "ttl"), 3);
        assert_eq!(distance("jsno", "json"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn finds_the_nearest_name_or_none() {
        let known = ["namespace", "entity", "ttl", "not_found_ttl"];
        assert_eq!(nearest("tll", &known), Some("ttl"));
        assert_eq!(nearest("name_space", &known), Some("namespace"));
        assert_eq!(nearest("notfound_tl", &known), Some("not_found_ttl"));
        assert_eq!(nearest("timeout", &known), None);
        assert_eq!(nearest("é", &known), None);
    }
}
