//! What is published: each package holds what its users need and nothing else, and builds from that alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What cargo adds to each package.
const ADDED: [&str; 4] = [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig"];

fn cargo_package(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--offline", "--allow-dirty"])
        .args(args)
        .current_dir(REPOSITORY)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Adds the paths of all files in a folder, relative to `root`.
fn add_files(root: &Path, folder: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            add_files(root, &path, files);
        } else {
            files.insert(path);
        }
    }
}

fn holds(package: &str, folder: &str, folders: &[&str], more: &[&str]) {
    let root = Path::new(REPOSITORY).join(folder);
    let mut expected: BTreeSet<_> = more.iter().copied().map(String::from).collect();
    for folder in folders {
        add_files(&root, folder, &mut expected);
    }
    // For the README, on pages that show it from the repository.
    expected.remove("docs/demo.png");
    let listed = cargo_package(&["--list", "-p", package]);
    let listed: BTreeSet<_> = listed.lines().filter(|file| !ADDED.contains(file)).map(String::from).collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    let needless: Vec<_> = listed.difference(&expected).collect();
    assert!(missing.is_empty() && needless.is_empty(), "{package} lacks {missing:?}, and needs no {needless:?}");
}

#[test]
fn the_packages_hold_what_their_users_need_and_build() {
    const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
    holds("cache-aside-derive", "cache-derive", &["src"], &LICENCES);
    let more = [&LICENCES[..], &["CHANGELOG.md", "README.md", "examples/quickstart.rs"]].concat();
    holds("cache-aside", ".", &["src", "docs"], &more);
    // Together, since one needs the other: cargo builds each from its package, with the other one's.
    cargo_package(&["-p", "cache-aside-derive", "-p", "cache-aside"]);
}
