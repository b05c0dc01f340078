//! PEM, as far as credential files need it: labelled blocks of base64, in order, any label.

use std::fmt::Write;

use data_encoding::BASE64;

const LINE_CHARS: usize = 64;

pub(super) struct Block {
    pub label: String,
    pub bytes: Vec<u8>,
}

pub(super) fn encode(blocks: &[(&str, &[u8])]) -> String {
    let mut text = String::new();
    for (label, bytes) in blocks {
        let base64 = BASE64.encode(bytes);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "-----BEGIN {label}-----");
        for line in base64.as_bytes().chunks(LINE_CHARS) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        let _ = writeln!(text, "-----END {label}-----");
    }
    text
}

/// Text between blocks is skipped, as PEM has it.
///
/// # Errors
/// What is wrong, without quoting any of the content.
pub(super) fn decode(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut base64 = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => base64.push_str(line),
                None => return Err(format!("the block `{label}` does not end")),
            }
        }
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| format!("the block `{label}` is not base64"))?;
        blocks.push(Block { label: label.into(), bytes });
    }
    Ok(blocks)
}
