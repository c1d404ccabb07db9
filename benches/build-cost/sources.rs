//! The sources of the programs, made from the templates in `ours` and `by_hand`.

use std::fmt::Write;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Flavor {
    CacheAside,
    ByHand,
}

struct Templates {
    main: &'static str,
    record: &'static str,
    gets: &'static str,
    /// Files that need no changes.
    others: &'static [(&'static str, &'static str)],
}

impl Flavor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CacheAside => "cache-aside",
            Self::ByHand => "by-hand",
        }
    }

    /// The lines under `[dependencies]`, with `REPOSITORY` for the path of this one.
    pub(crate) fn dependencies(self) -> &'static str {
        match self {
            Self::CacheAside => {
                r#"
cache-aside = { path = REPOSITORY }
tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
"#
            }
            Self::ByHand => {
                r#"
rand = "0.10"
redis = { version = "1", default-features = false, features = ["connection-manager", "script", "tokio-comp"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
"#
            }
        }
    }

    fn templates(self) -> Templates {
        match self {
            Self::CacheAside => Templates {
                main: include_str!("ours/main.rs"),
                record: include_str!("ours/record.rs"),
                gets: include_str!("ours/gets.rs"),
                others: &[],
            },
            Self::ByHand => Templates {
                main: include_str!("by_hand/main.rs"),
                record: include_str!("by_hand/record.rs"),
                gets: include_str!("by_hand/gets.rs"),
                others: &[("cache.rs", include_str!("by_hand/cache.rs"))],
            },
        }
    }
}

/// A module for each struct, and a `main` that can reach all of them, so that the linker drops nothing.
pub(crate) fn structs(flavor: Flavor, structs: usize) -> Vec<(String, String)> {
    let templates = flavor.templates();
    let numbers = |line: fn(usize) -> String| (0..structs).map(line).collect::<String>();
    let main = templates
        .main
        .replace("// modules\n", &numbers(|number| format!("mod record_{number};\n")))
        .replace("    // runs\n", &numbers(|number| format!("    record_{number}::run,\n")));
    let record = |number| (format!("record_{number}.rs"), record(flavor, templates.record, number));
    let mut files: Vec<_> = (0..structs).map(record).collect();
    files.push(("main.rs".to_owned(), main));
    files.extend(others(&templates));
    files
}

/// A program with one async function that makes this many gets, one after the other.
pub(crate) fn gets(flavor: Flavor, gets: usize) -> Vec<(String, String)> {
    let templates = flavor.templates();
    let text = record(flavor, templates.gets, 0);
    let again =
        |line: &str| if line.ends_with("// again") { format!("{line}\n").repeat(gets) } else { format!("{line}\n") };
    let mut files = vec![("main.rs".to_owned(), text.lines().map(again).collect())];
    files.extend(others(&templates));
    files
}

fn others(templates: &Templates) -> impl Iterator<Item = (String, String)> {
    templates.others.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
}

/// Fills in a template. Each struct has its own names and order of fields, so that LLVM can't merge functions of two structs.
fn record(flavor: Flavor, template: &str, number: usize) -> String {
    const FIELDS: [(&str, &str); 9] = [
        ("name", "String"),
        ("price_cents", "i64"),
        ("stock", "u64"),
        ("is_active", "bool"),
        ("weight", "f64"),
        ("description", "Option<String>"),
        ("tags", "Vec<String>"),
        ("parent", "Option<u64>"),
        ("rating", "Option<f64>"),
    ];
    let mut fields = String::new();
    for (name, ty) in FIELDS.iter().cycle().skip(number % FIELDS.len()).take(FIELDS.len()) {
        if matches!(flavor, Flavor::CacheAside) && ty.starts_with("Vec") {
            fields += "    #[cacheable(json)]\n";
        }
        let _ = writeln!(fields, "    {name}_{number}: {ty},");
    }
    let first = FIELDS[number % FIELDS.len()].0;
    let id = if number.is_multiple_of(2) { "u64" } else { "String" };
    template
        .replace("Record", &format!("Record{number}"))
        .replace("    // fields\n", &fields)
        .replace("first_field", &format!("{first}_{number}"))
        .replace("type Id = u64;", &format!("type Id = {id};"))
}
