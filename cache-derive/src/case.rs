//! `rename_all`, with serde's rules: a struct has the same names in Redis as in JSON.

/// A rule that makes stored names from the names of fields or variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

/// The rules by their names in attributes.
pub(crate) const CASES: [(&str, Case); 8] = [
    ("lowercase", Case::Lower),
    ("UPPERCASE", Case::Upper),
    ("PascalCase", Case::Pascal),
    ("camelCase", Case::Camel),
    ("snake_case", Case::Snake),
    ("SCREAMING_SNAKE_CASE", Case::ScreamingSnake),
    ("kebab-case", Case::Kebab),
    ("SCREAMING-KEBAB-CASE", Case::ScreamingKebab),
];

impl Case {
    /// The stored name of a field, which is in `snake_case`.
    pub(crate) fn of_field(self, field: &str) -> String {
        match self {
            // As serde does: a field is taken to be in lower case already.
            Self::Lower | Self::Snake => field.to_owned(),
            Self::Upper | Self::ScreamingSnake => field.to_ascii_uppercase(),
            Self::Pascal => pascal(field),
            Self::Camel => with_lower_start(&pascal(field)),
            Self::Kebab => field.replace('_', "-"),
            Self::ScreamingKebab => field.to_ascii_uppercase().replace('_', "-"),
        }
    }

    /// The stored text of a variant, which is in `PascalCase`.
    pub(crate) fn of_variant(self, variant: &str) -> String {
        match self {
            Self::Pascal => variant.to_owned(),
            Self::Lower => variant.to_ascii_lowercase(),
            Self::Upper => variant.to_ascii_uppercase(),
            Self::Camel => with_lower_start(variant),
            Self::Snake => snake(variant),
            Self::ScreamingSnake => snake(variant).to_ascii_uppercase(),
            Self::Kebab => snake(variant).replace('_', "-"),
            Self::ScreamingKebab => snake(variant).to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn pascal(field: &str) -> String {
    let mut pascal = String::new();
    let mut begins_word = true;
    for letter in field.chars() {
        if letter == '_' {
            begins_word = true;
        } else if begins_word {
            pascal.push(letter.to_ascii_uppercase());
            begins_word = false;
        } else {
            pascal.push(letter);
        }
    }
    pascal
}

/// As serde does: each upper-case letter begins a word.
fn snake(variant: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in variant.char_indices() {
        if at > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn with_lower_start(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::{CASES, Case};

    #[test]
    fn names_are_those_of_serde() {
        let fields = ["price_cents", "PRICE_CENTS", "PriceCents", "priceCents", "price_cents", "PRICE_CENTS"];
        let variants = ["httproute", "HTTPROUTE", "HTTPRoute", "hTTPRoute", "h_t_t_p_route", "H_T_T_P_ROUTE"];
        let kebab = [("price-cents", "h-t-t-p-route"), ("PRICE-CENTS", "H-T-T-P-ROUTE")];
        let expected: Vec<_> = fields.into_iter().zip(variants).chain(kebab).collect();
        let named = |case: Case| (case.of_field("price_cents"), case.of_variant("HTTPRoute"));
        let found: Vec<_> = CASES.iter().map(|(_, case)| named(*case)).collect();
        assert_eq!(found, expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>());
    }
}
