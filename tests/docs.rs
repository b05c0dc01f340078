//! The documents are held to the code: drawings of formats are the ones at the heads of their modules, and commands
//! that the README shows are commands that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// A drawing in `formats.md`, and the module it says it is from.
struct Drawing {
    source: PathBuf,
    text: String,
}

#[test]
fn drawings_of_formats_are_those_of_the_code() {
    let drawings = drawings(&read("src/docs/formats.md"));
    assert!(drawings.len() > 8, "only {} drawings", drawings.len());
    let faults: Vec<String> = drawings
        .iter()
        .filter(|drawing| !module_docs(&drawing.source).contains(&drawing.text))
        .map(|drawing| format!("{}: its drawing in formats.md is another:\n{}", drawing.source.display(), drawing.text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn tables_of_the_metadata_index_are_listed() {
    let (page, schema) = (read("src/docs/formats.md"), read("src/meta/state/schema.rs"));
    let numbered = schema.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = 0x"));
    let mut count = 0;
    for (table, number) in numbered {
        let row = format!("| `0x{number}` | {table} |");
        assert!(page.contains(&row), "formats.md lacks the row {row}");
        count += 1;
    }
    assert!(count > 20, "only {count} tables");
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
        Some(&("cluster" | "volume" | "token" | "config")) => words,
        _ => &words[..words.len().min(1)],
    }
}

fn drawings(page: &str) -> Vec<Drawing> {
    let mut found = Vec::new();
    let mut source = None;
    let mut drawing: Option<Vec<&str>> = None;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("From `").and_then(|rest| rest.strip_suffix("`:")) {
            source = Some(PathBuf::from(name));
        }
        match (&mut drawing, line) {
            (None, "```text") => drawing = Some(Vec::new()),
            (Some(lines), "```") => {
                let source = source.clone().expect("a drawing says where it is from");
                found.push(Drawing { source, text: lines.join("\n") });
                drawing = None;
            }
            (Some(lines), line) => lines.push(line),
            (None, _) => {}
        }
    }
    found
}

fn module_docs(path: &Path) -> String {
    let text = read(path);
    let docs = text.lines().filter_map(|line| line.strip_prefix("//!"));
    docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
