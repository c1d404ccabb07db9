//! The names that become parts of a key.

/// Whether a text can be a namespace or an entity.
pub(crate) fn is_key_part(text: &str) -> bool {
    let allowed = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(allowed)
}

/// `OrderLine` as `order_line`, `HTTPRoute` as `http_route`.
pub(crate) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                let ends_acronym = before.is_uppercase() && after.is_some_and(|after| after.is_lowercase());
                before.is_lowercase() || before.is_ascii_digit() || ends_acronym
            });
        if begins_word {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::{is_key_part, snake_case};

    #[test]
    fn splits_names_into_words() {
        for (name, snake) in [
            ("Product", "product"),
            ("OrderLine", "order_line"),
            ("HTTPRoute", "http_route"),
            ("Http2Route", "http2_route"),
            ("RouteV2", "route_v2"),
            ("SKU", "sku"),
            ("A", "a"),
            ("Order_Line", "order_line"),
            ("_Hidden", "_hidden"),
            ("order", "order"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn accepts_only_the_characters_of_a_key_part() {
        for text in ["a", "order-line_2"] {
            assert!(is_key_part(text), "{text}");
        }
        for text in ["", "Order", "order line", "order:line", "größe"] {
            assert!(!is_key_part(text), "{text}");
        }
    }
}
