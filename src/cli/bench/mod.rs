//! `holdfast bench DIR`: how fast a directory is, on a mount or anywhere else, to compare.
//!
//! Works in a directory of its own below it, which is gone afterwards, however it ends. No two bytes that are written are
//! alike, so deduplication and compression flatter nobody. What is read was written a moment ago: caches count, and direct
//! reads say how much.

mod load;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::load::{Access, Load, Measured};
use crate::cli::args::BenchArgs;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::out::{print, print_line};
use crate::cli::table::Table;

/// What a load is called, what it counts, and how it is run.
type Step = (&'static str, &'static str, fn(&mut Load) -> std::io::Result<Measured>);

const MIB: &str = "MiB/s";
const OPS: &str = "op/s";
const FILES: &str = "files/s";

/// In this order: each finds what those before it have left.
const STEPS: [Step; 14] = [
    ("sequential write, 1 MiB, then fsync", MIB, Load::write_sequentially),
    ("sequential read, 1 MiB", MIB, |load| load.read_sequentially(Access::Cached)),
    ("sequential read, 1 MiB, direct", MIB, |load| load.read_sequentially(Access::Direct)),
    ("random read, 4 KiB, direct, depth 1", OPS, |load| load.read_at_random(1)),
    ("random read, 4 KiB, direct, depth 16", OPS, |load| load.read_at_random(16)),
    ("random write, 4 KiB, direct, depth 1", OPS, |load| load.write_at_random(1)),
    ("random write, 4 KiB, direct, depth 16", OPS, |load| load.write_at_random(16)),
    ("random write, 4 KiB, then fdatasync", OPS, Load::write_and_sync),
    ("create a file of 4 KiB", FILES, Load::create),
    ("stat", FILES, Load::look),
    ("open, read, close", FILES, Load::read),
    ("rename", FILES, Load::rename),
    ("unlink", FILES, Load::unlink),
    ("create a file of 4 KiB, then fsync", FILES, Load::create_and_sync),
];

/// One line of the result.
struct Line {
    name: &'static str,
    unit: &'static str,
    measured: Measured,
}

/// # Errors
/// The directory cannot be worked in, or a load failed.
pub fn run(args: &BenchArgs) -> Outcome {
    if args.files == 0 || args.size_mib == 0 || args.seconds == 0 {
        return Err(Failure::usage("a benchmark of nothing says nothing"));
    }
    let place = Place::make(&args.path)?;
    let mut load = Load::new(&place.0, args.size_mib, args.files, args.seconds);
    let mut lines = Vec::new();
    for (number, (name, unit, step)) in STEPS.into_iter().enumerate() {
        progress(number, name);
        let measured = step(&mut load).or_fail(|| format!("{name}, in {}", args.path.display()))?;
        lines.push(Line { name, unit, measured });
    }
    progress(STEPS.len(), "");
    if args.json { print_line(format_args!("{:#}", to_json(&lines))) } else { print(to_text(&lines)) }
}

/// Where it works. Taken away when dropped.
struct Place(PathBuf);

impl Place {
    fn make(dir: &Path) -> Outcome<Place> {
        let place = dir.join(format!(".holdfast-bench-{}", std::process::id()));
        fs::create_dir(&place).or_fail(|| format!("{} cannot be worked in", dir.display()))?;
        Ok(Place(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("holdfast: {} is left behind: {error}", self.0.display());
        }
    }
}

/// What is done now, on a line of its own that the next one overwrites; nothing for who does not look.
fn progress(done: usize, name: &str) {
    let mut out = std::io::stderr().lock();
    if out.is_terminal() {
        let bar: String = (0..STEPS.len()).map(|step| if step < done { '#' } else { '.' }).collect();
        let line = if name.is_empty() { String::new() } else { format!("[{bar}] {name}") };
        let _ = write!(out, "\r\x1b[K{line}");
        let _ = out.flush();
    }
}

fn to_text(lines: &[Line]) -> Table {
    let mut table = Table::new(&["WHAT", "RATE", "UNIT", "MEDIAN", "99TH"]);
    let span = |us: u64| if us < 10_000 { format!("{us} us") } else { format!("{} ms", us / 1000) };
    for Line { name, unit, measured } in lines {
        let rate = format!("{:.*}", usize::from(measured.rate < 100.0), measured.rate);
        let [median, last] = [50, 99].map(|percent| span(measured.percentile_us(percent)));
        table.row([(*name).to_string(), rate, (*unit).to_string(), median, last]);
    }
    table
}

fn to_json(lines: &[Line]) -> Value {
    Value::from_iter(lines.iter().map(|Line { name, unit, measured }| {
        json!({
            "name": name,
            "unit": unit,
            "rate": measured.rate,
            "median_us": measured.percentile_us(50),
            "p99_us": measured.percentile_us(99),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::make(dir.path()).unwrap();
        let mut load = Load::new(&place.0, 1, 5, 1);
        load.span = std::time::Duration::from_millis(20);
        for (name, _, step) in STEPS {
            let measured = step(&mut load).unwrap();
            assert!(measured.rate > 0.0 && measured.percentile_us(99) >= measured.percentile_us(50), "{name}");
        }
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
