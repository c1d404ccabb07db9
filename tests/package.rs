//! What is published: each package holds what its users need and nothing else, and builds from that alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What cargo adds to each package.
const ADDED: [&str; 4] = [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig"];

/// Where cargo puts what it builds, and the packages.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cargo_package(args: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--offline", "--allow-dirty"]).args(args);
    run(cargo.current_dir(REPOSITORY).env("CARGO_TARGET_DIR", target()))
}

/// Builds the library from its package, with the derive from its own. Cargo's own check would take the derive from an earlier run,
/// if its version is the same.
fn builds_alone() {
    cargo_package(&["--no-verify", "-p", "cache-aside-derive", "-p", "cache-aside"]);
    let folder = tempfile::tempdir().unwrap();
    let unpacked = |package: &str| {
        let name = format!("{package}-{}", env!("CARGO_PKG_VERSION"));
        let file = target().join("package").join(format!("{name}.crate"));
        run(Command::new("tar").arg("-xzf").arg(file).current_dir(&folder));
        folder.path().join(name)
    };
    let (derive, library) = (unpacked("cache-aside-derive"), unpacked("cache-aside"));
    let patch = format!("patch.crates-io.cache-aside-derive.path = {derive:?}");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--offline", "--config", &patch]).current_dir(library);
    run(cargo.env("CARGO_TARGET_DIR", target()).env_remove("CARGO_MANIFEST_DIR"));
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
    builds_alone();
}
