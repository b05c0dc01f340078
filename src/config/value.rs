//! Typed values: sizes, spans of time, addresses. Parsed once, printed back in the form they are documented in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::types::attr::Owner;

/// The text is not a value of this type; one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub String);

/// A number of bytes, written `4096`, `64KiB`, `256MiB`, `1GiB` or `2TiB`; `0` often means "no limit". Other spellings are read as
/// GNU's programs read them: `10G` and `10g` are `10GiB`, `10GB` is ten times ten to the ninth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct ByteSize(pub u64);

/// A span of time, written `500ms`, `10s`, `5m`, `1h` or `7d`; a bare `0` is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Span(pub Duration);

/// `host:port` or `[v6]:port`. A host name is allowed: it is looked up when it is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort(String);

/// One address or more, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPorts(pub Vec<HostPort>);

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// A string or a bare number, as TOML has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// What is read besides, in lower case.
const SIZES_READ: [(&str, u64); 17] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("ti", 1 << 40),
    ("gi", 1 << 30),
    ("mi", 1 << 20),
    ("ki", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
];
/// Milliseconds each; `ms` stands before `s` and `m`, which it ends and begins with.
const SPANS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// `number` and the factor of its unit, if the text is both.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|rest| (rest, *factor)))?;
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

impl FromStr for ByteSize {
    type Err = ValueError;

    /// # Errors
    /// The text is neither a whole number nor one with a unit, or overflows 64 bits.
    fn from_str(text: &str) -> Result<ByteSize, ValueError> {
        let text = text.trim();
        let bytes = text.parse().ok().or_else(|| scaled(&text.to_ascii_lowercase(), &SIZES_READ));
        bytes.map(ByteSize).ok_or_else(|| {
            ValueError(format!("`{text}` is not a size; write a whole number with KiB, MiB, GiB or TiB, as in 256MiB"))
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) if *factor > 1 => write!(out, "{}{unit}", self.0 / factor),
            _ => write!(out, "{}", self.0),
        }
    }
}

impl FromStr for Owner {
    type Err = ValueError;

    /// `UID[:GID]`; a group that is not given has the user's number.
    ///
    /// # Errors
    /// The text is not one number or two.
    fn from_str(text: &str) -> Result<Owner, ValueError> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let number = |id: &str| id.parse().ok().filter(|id| *id != u32::MAX);
        match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Ok(Owner { uid, gid }),
            _ => Err(ValueError(format!("`{text}` is not an owner; write UID or UID:GID, in numbers"))),
        }
    }
}

/// Permissions, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = ValueError;

    /// # Errors
    /// The text is not an octal number up to 7777.
    fn from_str(text: &str) -> Result<Mode, ValueError> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.map(Mode).ok_or_else(|| ValueError(format!("`{text}` is not a mode; write it in octal, as in 2770")))
    }
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = ValueError;

    /// # Errors
    /// The text has no `=`.
    fn from_str(text: &str) -> Result<Label, ValueError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| ValueError(format!("`{text}` is not a label; write KEY=VALUE, as in team=web")))?;
        Ok(Label { key: key.to_owned(), value: value.to_owned() })
    }
}

/// `KEY`, or `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    key: String,
    value: Option<String>,
}

impl LabelFilter {
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

impl FromStr for LabelFilter {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<LabelFilter, Infallible> {
        Ok(match text.split_once('=') {
            Some((key, value)) => LabelFilter { key: key.to_owned(), value: Some(value.to_owned()) },
            None => LabelFilter { key: text.to_owned(), value: None },
        })
    }
}

impl FromStr for Span {
    type Err = ValueError;

    /// # Errors
    /// The text is not a whole number with a unit of time.
    fn from_str(text: &str) -> Result<Span, ValueError> {
        let text = text.trim();
        let millis = if text == "0" { Some(0) } else { scaled(text, &SPANS) };
        millis.map(|ms| Span(Duration::from_millis(ms))).ok_or_else(|| {
            ValueError(format!("`{text}` is not a span of time; write a whole number with ms, s, m, h or d, as in 10s"))
        })
    }
}

impl Span {
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |factor: u64| millis != 0 && millis.is_multiple_of(u128::from(factor));
        let unit = SPANS[1..].iter().find(|(_, factor)| whole(*factor));
        match unit {
            _ if millis == 0 => write!(out, "0"),
            Some((unit, factor)) => write!(out, "{}{unit}", millis / u128::from(*factor)),
            None => write!(out, "{millis}ms"),
        }
    }
}

impl FromStr for HostPort {
    type Err = ValueError;

    /// # Errors
    /// The text is not `host:port`.
    fn from_str(text: &str) -> Result<HostPort, ValueError> {
        let fault = || ValueError(format!("`{text}` is not an address; write host:port, as in 10.0.0.1:7400"));
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let plain =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !(bracketed || plain) || port.parse::<u16>().is_err() {
            return Err(fault());
        }
        Ok(HostPort(text.to_string()))
    }
}

impl HostPort {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for HostPorts {
    type Err = ValueError;

    /// # Errors
    /// One of them is not `host:port`.
    fn from_str(text: &str) -> Result<HostPorts, ValueError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(HostPorts)
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, address)| write!(out, "{}{address}", if n == 0 { "" } else { "," }))
    }
}

impl FromStr for LogFormat {
    type Err = ValueError;

    /// # Errors
    /// The text is neither `text` nor `json`.
    fn from_str(text: &str) -> Result<LogFormat, ValueError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(ValueError(format!("`{other}` is not a log format; write text or json"))),
        }
    }
}

impl TryFrom<Scalar> for ByteSize {
    type Error = ValueError;

    fn try_from(scalar: Scalar) -> Result<ByteSize, ValueError> {
        match scalar {
            Scalar::Number(bytes) => Ok(ByteSize(bytes)),
            Scalar::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<Scalar> for Span {
    type Error = ValueError;

    fn try_from(scalar: Scalar) -> Result<Span, ValueError> {
        match scalar {
            Scalar::Number(number) => number.to_string().parse(),
            Scalar::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = ValueError;

    fn try_from(text: String) -> Result<HostPort, ValueError> {
        text.parse()
    }
}

impl TryFrom<String> for LogFormat {
    type Error = ValueError;

    fn try_from(text: String) -> Result<LogFormat, ValueError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!("2770".parse(), Ok(Mode(0o2770)));
        for bad in ["", "rwx", "88", "10000", "-1"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_have_a_key_and_a_value() {
        let label: Label = "app=web=1".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("app", "web=1"));
        assert!("app".parse::<Label>().is_err());
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let fits = |filter: &str| filter.parse::<LabelFilter>().unwrap().fits(&labels);
        assert!(fits("app") && fits("app=web") && !fits("app=") && !fits("tier"));
    }

    #[test]
    fn sizes_are_read_and_printed_back() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64KiB", 65_536), ("256 MiB", 256 << 20), ("2TiB", 2 << 40)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(ByteSize(256 << 20).to_string(), "256MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000");
        assert_eq!(ByteSize(0).to_string(), "0");
        for (text, bytes) in
            [("10G", 10 << 30), ("10g", 10 << 30), ("10Gi", 10 << 30), ("10GB", 10_000_000_000), ("3kb", 3000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "MiB", "1.5GiB", "-1", "5X", "5 M B", "99999999TiB", "99999999TB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_read_and_printed_back() {
        for (text, ms) in [("0", 0), ("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), ms);
            assert_eq!(span.to_string(), text);
        }
        for bad in ["", "10", "s", "-1s", "1y"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:7400", "meta-1.example:1", "[::1]:7400"] {
            assert_eq!(good.parse::<HostPort>().unwrap().as_str(), good);
        }
        for bad in ["", "host", ":7400", "host:", "host:99999", "a b:1", "::1:7400", "[]:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn owners_are_numbers() {
        assert_eq!("1000".parse(), Ok(Owner { uid: 1000, gid: 1000 }));
        assert_eq!("1000:100".parse(), Ok(Owner { uid: 1000, gid: 100 }));
        for bad in ["", "me", "1:", ":1", "-1", "4294967295"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
