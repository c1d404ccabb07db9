//! The public interface of the library with all features, an item a line, in `cache-aside.txt`: no change of it goes unnoticed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use public_api::Builder;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

const ADVICE: &str = "\
If the change is meant, write it into CHANGELOG.md, run `UPDATE_SNAPSHOTS=1 cargo test -p public-interface`, and commit the diff.
Breaking, so for a release that may break: a line that is removed or changed, unless it only allows more than before; a new variant
or public field of what is not `#[non_exhaustive]`; a new method without a default in a trait that users implement. `Send`, `Sync`
and `UnwindSafe` count too.";

/// What is not part of the interface: pages, which exist in the documentation alone, and traits that have no stable name.
const LEFT_OUT: [&str; 4] = [
    "pub mod cache_aside::docs",
    "impl core::marker::Freeze ",
    "impl core::marker::StructuralPartialEq ",
    "impl core::marker::UnsafeUnpin ",
];

/// Documents the library as JSON. Items that are `#[doc(hidden)]` are not in it.
fn documented() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // Not the folder of `cargo doc`: its pages would be removed.
    let documentation = target.join("public-interface");
    // The selection for which `cargo clippy --workspace --all-targets --all-features` has compiled the dependencies.
    let mut command = Command::new(env!("CARGO"));
    // Cargo sets them for a test, and builds `ring` anew whenever one of them changes.
    for (name, _) in env::vars_os() {
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["doc", "--quiet", "--workspace", "--all-features", "--no-deps", "--lib", "--examples"])
        .current_dir(FOLDER)
        .env("CARGO_TARGET_DIR", &documentation)
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env("RUSTDOC", Path::new(FOLDER).join("rustdoc"))
        // `docsrs` as on docs.rs: the badges of features need an unstable rustdoc too, and are built nowhere else.
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json --cfg docsrs")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documentation.join("doc/cache_aside.json")
}

#[test]
fn the_public_interface_is_as_recorded() {
    let interface = Builder::from_rustdoc_json(documented()).omit_blanket_impls(true).build();
    let interface = interface.expect("another version of the crate `public-api` may read what this rustdoc writes");
    let items: Vec<_> = interface.items().map(ToString::to_string).collect();
    let items: Vec<_> =
        items.iter().filter(|item| !LEFT_OUT.iter().any(|left_out| item.starts_with(left_out))).collect();
    let text: String = items.iter().flat_map(|item| [item, "\n"]).collect();

    let snapshot = Path::new(FOLDER).join("cache-aside.txt");
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(snapshot, text).unwrap();
        return;
    }
    let recorded = fs::read_to_string(snapshot).unwrap();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (recorded.lines().collect(), text.lines().collect());
    let removed = old.difference(&new).map(|item| format!("- {item}\n"));
    let added = new.difference(&old).map(|item| format!("+ {item}\n"));
    let changes: String = removed.chain(added).collect();
    assert!(changes.is_empty(), "the public interface has changed:\n{changes}\n{ADVICE}");
}
