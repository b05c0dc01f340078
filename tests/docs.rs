//! The documents are held to the code: tables that exist are listed, files that a page names are there, and commands
//! that the README shows are commands that the program knows.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn tables_of_the_metadata_index_are_listed() {
    let (page, schema) = (read("src/docs/formats.md"), read("src/meta/state/schema.rs"));
    let numbered = schema.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = 0x"));
    let mut count = 0;
    for (table, number) in numbered {
        let listed = page.lines().any(|line| line.strip_prefix(number).is_some_and(|rest| rest.starts_with("    ")));
        assert!(listed, "formats.md lacks the table {table}, {number}");
        count += 1;
    }
    assert!(count > 20, "only {count} tables");
}

#[test]
fn files_that_pages_name_are_there() {
    let mut named = 0;
    let mut faults = Vec::new();
    for page in ["architecture", "semantics", "flows", "formats", "testing", "glossary"] {
        let page = format!("src/docs/{page}.md");
        // What stands between backquotes and looks like a path into the tree.
        for word in read(&page).split('`').skip(1).step_by(2).filter(|word| is_path(word)) {
            let found = [word.to_string(), format!("src/{word}")].iter().any(|path| in_tree(path).exists());
            named += 1;
            if !found {
                faults.push(format!("{page} names {word}, which is not there"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(named > 40, "only {named} files");
}

fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
    plain && word.contains('/') && (word.ends_with(".rs") || word.ends_with(".md"))
}

#[test]
fn the_commands_of_the_readme_exist() {
    let mut tried = 0;
    for line in read("README.md").lines().map(str::trim) {
        let Some(words) = line.strip_prefix("holdfast ") else { continue };
        let command: Vec<&str> = words.split_whitespace().take_while(|word| is_subcommand(word)).take(2).collect();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(subcommands(&command))
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "holdfast {}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
        let help = String::from_utf8_lossy(&output.stdout);
        for flag in words.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "`{line}` of the README uses {flag}, which --help does not know");
        }
        tried += 1;
    }
    assert!(tried > 5, "only {tried} commands");
}

fn is_subcommand(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase())
}

/// `mount web /srv` has one subcommand, `volume create web` two: only these take a second.
fn subcommands<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    match words.first() {
        Some(&("cluster" | "volume" | "token" | "key" | "config")) => words,
        _ => &words[..words.len().min(1)],
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = in_tree(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn in_tree(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
