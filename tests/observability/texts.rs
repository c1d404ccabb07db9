//! `docs/errors.md` has the texts of errors and log lines: those on the page are in the library's source, and the source has no
//! log line that is not on the page.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::LitStr;

use crate::documents::document;

/// What the library writes, by its source.
#[derive(Default)]
struct Written {
    /// The parts of string literals between their placeholders.
    parts: Vec<String>,
    log_lines: Vec<String>,
}

impl Written {
    fn by_the_library() -> Self {
        let mut written = Self::default();
        written.read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"));
        // A long part may contain a short one.
        written.parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        written
    }

    fn read_folder(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read_folder(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.read(std::fs::read_to_string(&path).unwrap().parse().unwrap());
            }
        }
    }

    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else {
                self.parts.extend(literal(token).iter().flat_map(|text| parts(text)));
                continue;
            };
            let before: String = tokens[..place].iter().rev().take(5).map(ToString::to_string).collect();
            if ["debug", "info", "warn", "error"].iter().any(|level| before == format!("!{level}::tracing")) {
                let message = group.stream().into_iter().filter_map(|token| literal(&token)).last();
                self.log_lines.push(message.expect("each line in the log has a text"));
            }
            let is_doc = group.stream().into_iter().next().is_some_and(|first| first.to_string() == "doc");
            if !is_doc && !before.starts_with("testsmod") {
                self.read(group.stream());
            }
        }
    }

    /// Whether a text consists of parts, and of words that may be their values.
    fn has(&self, text: &str) -> bool {
        let words = text.trim();
        if !words.contains(' ') || self.parts.iter().any(|part| part.contains(words)) {
            return true;
        }
        let sides = self.parts.iter().find_map(|part| text.split_once(part.as_str()));
        sides.is_some_and(|(before, after)| self.has(before) && self.has(after))
    }
}

fn literal(token: &TokenTree) -> Option<String> {
    syn::parse2::<LitStr>(token.clone().into()).ok().map(|literal| literal.value())
}

fn parts(text: &str) -> Vec<String> {
    const SHORTEST: usize = 6;
    let parts = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    parts.filter(|part| part.len() >= SHORTEST).map(str::to_owned).collect()
}

/// The texts in the tables of the page that the library writes: the code in the column that has texts. Tables of what the driver,
/// the server or rustc says have none.
fn texts(page: &str) -> Vec<String> {
    let (mut texts, mut table) = (Vec::new(), None);
    for line in page.lines() {
        let line = line.replace("\\|", "\0");
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            table = None;
            continue;
        }
        match table {
            None => {
                let headings = ["text", "step", "the error ends with", "the cause says"];
                let column = cells.iter().position(|cell| headings.contains(cell));
                assert!(column.is_some() || ["they say", "rustc says"].contains(&cells[1]), "{line}");
                table = Some(column);
            }
            Some(None) => {}
            Some(Some(column)) => {
                let cell: &str = cells[column];
                texts.extend(code(&cell.replace('\0', "|")));
            }
        }
    }
    texts
}

/// The code in a line of Markdown, between single or double backticks.
fn code(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('`') else { return Vec::new() };
    let (rest, fence) = rest.strip_prefix('`').map_or((rest, "`"), |rest| (rest, "``"));
    let (text, rest) = rest.split_once(fence).expect(line);
    [vec![text.to_owned()], code(rest)].concat()
}

#[test]
fn the_texts_on_the_page_of_errors_are_written_by_the_library() {
    let (written, texts) = (Written::by_the_library(), texts(&document("errors.md")));
    assert!(texts.len() > 150, "{}", texts.len());
    for text in texts {
        // `K` stands for a key, and `..` for what varies.
        for piece in text.split(" K").flat_map(|piece| piece.split("..")) {
            assert!(written.has(piece), "nothing writes {piece:?} of {text:?}");
        }
    }
}

#[test]
fn all_log_lines_are_on_the_page_of_errors() {
    let (written, page) = (Written::by_the_library(), document("errors.md"));
    assert!(written.log_lines.len() > 20, "{:?}", written.log_lines);
    for line in written.log_lines {
        assert!(page.contains(&format!("`{line}`")), "{line:?} is not on the page");
    }
}
