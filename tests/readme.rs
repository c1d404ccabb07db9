//! The README, followed as a new user follows it: its commands run as printed, and print what it says.
//!
//! - A block of commands is `sh`. They run in this repository, and those of "Getting started" in an empty folder.
//! - A block of `text` is what the commands before it print.
//! - Where a sentence names `src/main.rs`, the last block of `rust` goes there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::server::{Flavor, Server};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Commands that don't run here, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("./scripts/test", "runs this test"),
    ("cargo run -p demo", "runs until it is stopped; the tests of `examples/demo` run it"),
    ("cargo run -p demo -- --cache redis://127.0.0.1:6379", "the same"),
];

/// What differs from a new user's machine.
const PRELUDE: &str = r#"
set -e
export CARGO_NET_OFFLINE=true
# The profile of this workspace, so that what it has built is used.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
profile='profile.dev.package."*".debug=false'
# The clone is here. Not a link next to the new crate: its name would be new each time, and the library compiled again.
cargo() { command cargo --config "$profile" "${@/#..\/cache-aside/$REPOSITORY}"; }
# Another port than 6379, and the output of a terminal.
redis-cli() { command redis-cli -p "$PORT" --no-raw "$@"; }
"#;

const END_OF_BLOCK: &str = "-- end of block --";

/// The parts of the README that the test acts on.
enum Part<'a> {
    Section(&'a str),
    Sentence(&'a str),
    Block { language: &'a str, text: String },
}

fn parts(readme: &str) -> Vec<Part<'_>> {
    let mut lines = readme.lines();
    let mut parts = Vec::new();
    while let Some(line) = lines.next() {
        parts.push(if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
            Part::Block { language, text }
        } else if let Some(title) = line.strip_prefix("## ") {
            Part::Section(title)
        } else {
            Part::Sentence(line)
        });
    }
    parts
}

/// What a section tells to do, as a script, and what each of its blocks prints if the README says so.
#[derive(Default)]
struct Section {
    script: String,
    printed: Vec<Option<String>>,
}

impl Section {
    fn run(&self, folder: &Path, server: &Server) {
        let output = Command::new("bash")
            .args(["-c", &format!("{PRELUDE}{}", self.script)])
            .current_dir(folder)
            .env("REPOSITORY", REPOSITORY)
            .env("PORT", server.port().to_string())
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
            .env_remove("CACHE_URL")
            .output()
            .expect("bash is installed");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{stdout}\n{stderr}", self.script);
        let printed: Vec<_> = stdout.split(&format!("{END_OF_BLOCK}\n")).collect();
        for (printed, expected) in printed.iter().zip(&self.printed) {
            let Some(expected) = expected else { continue };
            assert_eq!(printed, expected, "of {}\n{stderr}", self.script);
        }
    }
}

#[tokio::test]
async fn each_line_works_as_printed() {
    let readme = fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap();
    let server = Server::start(Flavor::Redis70).await;
    let new_folder = tempfile::tempdir().unwrap();

    let mut not_run: Vec<&str> = NOT_RUN.iter().map(|(command, _)| *command).collect();
    let mut title = "";
    let mut section = Section::default();
    let mut program = String::new();
    let run = |title: &str, section: &Section| {
        let folder = if title == "Getting started" { new_folder.path() } else { Path::new(REPOSITORY) };
        section.run(folder, &server);
    };
    for part in parts(&readme) {
        match part {
            Part::Section(next) => {
                run(title, &section);
                (title, section) = (next, Section::default());
            }
            Part::Sentence(sentence) => {
                if sentence.contains("`src/main.rs`") {
                    // The versions that are built already.
                    write!(section.script, "cp \"$REPOSITORY/Cargo.lock\" .\ncat >src/main.rs <<'END'\n{program}END\n")
                        .unwrap();
                }
            }
            Part::Block { language: "rust", text } => program = text,
            Part::Block { language: "sh", text } => {
                for line in text.lines() {
                    let command = line.split(" #").next().unwrap().trim_end();
                    match not_run.iter().position(|known| *known == command) {
                        Some(known) => drop(not_run.remove(known)),
                        None => {
                            let line = line.replace("127.0.0.1:6379", &format!("127.0.0.1:{}", server.port()));
                            writeln!(section.script, "{line}").unwrap();
                        }
                    }
                }
                writeln!(section.script, "echo '{END_OF_BLOCK}'").unwrap();
                section.printed.push(None);
            }
            Part::Block { language: "text", text } => {
                let printed = section.printed.last_mut().expect("what is printed comes after what prints it");
                assert_eq!(*printed, None, "two outputs of one block");
                *printed = Some(text);
            }
            Part::Block { language, .. } => panic!("a block of {language:?}: see the rules above"),
        }
    }
    run(title, &section);
    assert!(not_run.is_empty(), "no longer in the README: {not_run:?}");
    assert!(!program.is_empty(), "no program");
}
