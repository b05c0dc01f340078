//! What a command prints on standard output. A reader that went away ends it quietly; a disk that is full fails it.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::cli::failure::{Context, Outcome};

/// # Errors
/// It could not be written.
pub fn print(text: impl Display) -> Outcome {
    write(&mut io::stdout().lock(), text)
}

/// As [`print()`], and ends the line.
///
/// # Errors
/// It could not be written.
pub fn print_line(text: impl Display) -> Outcome {
    print(format_args!("{text}\n"))
}

/// Prints a document as JSON, for people as well.
///
/// # Errors
/// It could not be written.
pub fn print_json(document: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(document).or_fail(|| "the answer could not be written".to_string())?;
    print_line(text)
}

fn write(to: &mut impl Write, text: impl Display) -> Outcome {
    match write!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.or_fail(|| "the answer could not be written".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(write(&mut writer, "text"), Ok(()));
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        assert!(write(&mut full, "text").unwrap_err().sentence().contains("No space left"));
    }
}
