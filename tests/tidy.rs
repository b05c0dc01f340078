//! Checks of the code itself: layering, file length, function length.
//!
//! One package has no crate boundaries, so nothing but this test stops a lower
//! layer from importing a higher one. Adding a row or an edge here is a design
//! decision and needs a line in src/docs/decisions/.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// `(module, modules it may import)`, lowest layer first.
const LAYERS: &[(&str, &[&str])] = &[
    // Prose compiled into rustdoc, so that its links are checked.
    ("docs", &[]),
    // Words: pure values, no I/O, no clock, no task.
    ("types", &[]),
    ("config", &["types"]),
    ("placement", &["types"]),
    ("wire", &["types"]),
    // Seams and services every process needs.
    ("host", &["types"]),
    ("telemetry", &["types", "config"]),
    // What outlives a client: small, and replaced when no client is.
    ("keeper", &[]),
    ("daemon", &["types", "config", "host", "telemetry"]),
    ("crypto", &["types", "config", "host"]),
    ("kv", &["types", "host"]),
    ("pack", &["types"]),
    // Talk.
    ("net", &["types", "config", "wire", "host", "telemetry", "daemon", "crypto"]),
    ("remote", &["types", "config", "placement", "wire", "pack", "net", "daemon", "telemetry"]),
    // The three engines. None imports another.
    ("meta", &["types", "config", "placement", "wire", "host", "telemetry", "daemon", "crypto", "kv", "net"]),
    (
        "store",
        &[
            "types",
            "config",
            "placement",
            "wire",
            "host",
            "telemetry",
            "daemon",
            "crypto",
            "kv",
            "pack",
            "net",
            "remote",
        ],
    ),
    ("client", &["types", "config", "placement", "wire", "host", "telemetry", "daemon", "remote"]),
    // Front doors. None imports another, save the command line.
    ("fuse", &["types", "config", "host", "telemetry", "daemon", "client"]),
    ("container", &["types", "config", "host", "keeper", "daemon", "telemetry", "remote"]),
    ("admin", &["types", "config", "crypto", "daemon", "telemetry", "remote"]),
    // The command line assembles every role, so it alone sees everything.
    (
        "cli",
        &[
            "types",
            "config",
            "placement",
            "wire",
            "host",
            "telemetry",
            "keeper",
            "daemon",
            "crypto",
            "kv",
            "net",
            "remote",
            "meta",
            "store",
            "client",
            "fuse",
            "container",
            "admin",
        ],
    ),
];

/// `(third-party crate, the only places that may name it)`.
const HOMES: &[(&str, &[&str])] = &[
    ("fuser", &["src/fuse"]),
    ("quinn", &["src/net"]),
    ("rustls", &["src/crypto", "src/net"]),
    ("sled", &["src/kv"]),
    ("openraft", &["src/meta/raft"]),
    ("rkyv", &["src/types", "src/wire", "src/meta/command.rs", "src/meta/state", "src/meta/raft"]),
    ("blake3", &["src/types"]),
    ("tonic", &["src/container/csi"]),
    ("tonic_prost", &["src/container/csi"]),
    ("prost", &["src/container/csi"]),
    ("ureq", &["src/container/vault.rs"]),
    ("tower_service", &["src/container/csi"]),
    ("axum", &["src/admin", "src/container/docker"]),
    ("axum_server", &["src/admin"]),
    ("utoipa", &["src/admin"]),
    ("prometheus_client", &["src/admin"]),
    ("clap", &["src/cli", "src/daemon", "bins"]),
    ("clap_complete", &["src/cli"]),
    ("clap_mangen", &["src/cli"]),
    ("anyhow", &["src/cli", "src/daemon", "bins"]),
];
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn layers_are_a_dag() {
    let mut below = BTreeSet::new();
    for (module, imports) in LAYERS {
        for import in *imports {
            assert!(below.contains(import), "{module} is listed above {import}");
        }
        below.insert(*module);
    }
}

#[test]
fn imports_point_down() {
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let Some(module) = top_module(&file) else { continue };
        let Some(may_import) = allowed.get(module.as_str()) else {
            faults.push(format!("{}: module `{module}` has no row in LAYERS", file.display()));
            continue;
        };
        for import in crate_imports(&fs::read_to_string(&file).unwrap()) {
            if import != module && allowed.contains_key(import.as_str()) && !may_import.contains(&import.as_str()) {
                faults.push(format!("{}: `{module}` may not import `{import}`", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn crates_stay_home() {
    let mut faults = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("bins")) {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        for (name, homes) in HOMES {
            let path = format!("{name}::");
            let named = code
                .iter()
                .any(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').any(|w| w.starts_with(&path)));
            if named && !homes.iter().any(|home| file.starts_with(home)) {
                faults.push(format!("{}: `{name}` belongs in {homes:?}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_and_functions_fit() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines", file.display(), lines.len()));
        }
        for (start, line) in lines.iter().enumerate().filter(|(_, l)| opens_function(l)) {
            let indent = line.len() - line.trim_start().len();
            let close = format!("{:indent$}}}", "");
            let length = lines[start..].iter().take_while(|l| **l != close).count() + 1;
            if length > FUNCTION_LINES_MAX && line.trim_end().ends_with('{') {
                faults.push(format!("{}:{}: function of {length} lines", file.display(), start + 1));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn opens_function(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with("//") && (line.starts_with("fn ") || line.contains(" fn "))
}

/// The top-level modules named after `crate::`, in both `crate::a` and `crate::{a, b::C}` forms.
fn crate_imports(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                for c in group.chars().chain(",".chars()) {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            found.insert(head(&word));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.insert(head(&word));
                            word.clear()
                        }
                        _ if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
            }
            None => {
                found.insert(head(rest));
            }
        }
    }
    found
}

fn head(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_module(file: &Path) -> Option<String> {
    let first = file.strip_prefix("src").ok()?.components().next()?;
    let name = first.as_os_str().to_str()?.trim_end_matches(".rs").to_string();
    (name != "lib").then_some(name)
}

fn rust_files(root: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from(root)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path)
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path)
            }
        }
    }
    found
}
