//! Layering: flags over environment over one file over defaults, with the origin of every value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::roles::TABLES;

/// A setting: its key, what it means, and its default.
pub struct Field {
    pub key: &'static str,
    /// The lines of its documentation.
    pub doc: &'static [&'static str],
    pub default: fn() -> Value,
    /// Whether a value is of the field's type.
    ///
    /// # Errors
    /// One clause for people: what is wrong with it.
    pub check: fn(&Value) -> Result<(), String>,
}

/// The settings of one role: one `[name]` table of the file.
pub struct Section {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    pub fields: &'static [Field],
}

/// A struct that a section fills.
pub trait FromSettings: Sized {
    const SECTION: &'static Section;

    /// # Errors
    /// A value is not of its field's type (which [`Settings::resolve`] has already refused).
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError>;
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

/// What is wrong with the settings; one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} is not valid TOML: {why}", path = path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("{path} has an unknown section [{section}]; the sections are {known}", path = path.display())]
    UnknownSection { path: PathBuf, section: String, known: String },
    #[error("{path} sets `{section}.{key}`, which does not exist; see `holdfast config print`", path = path.display())]
    UnknownKey { path: PathBuf, section: String, key: String },
    #[error("the value of `{section}.{key}` (from {origin}) cannot be used: {why}")]
    BadValue { section: String, key: String, origin: Origin, why: String },
}

/// Values given as flags, by section and key.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static str, &'static str, Value)>);

/// Everything that is laid over the defaults.
pub struct Sources<'a> {
    pub flags: Flags,
    /// Looks a variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The one file, if there is one, with its text.
    pub file: Option<(PathBuf, String)>,
}

/// Every setting with its origin.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<(&'static str, &'static str), (Value, Origin)>,
}

impl Flags {
    /// Adds a flag that was given; `None` leaves the setting to the other layers.
    pub fn set(&mut self, section: &'static str, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.push((section, key, value.into()));
        }
    }

    /// Adds a list that was given; an empty one was not.
    pub fn set_list(&mut self, section: &'static str, key: &'static str, values: Vec<String>) {
        self.set(section, key, (!values.is_empty()).then_some(values));
    }
}

impl Settings {
    /// Lays the sources over the defaults.
    ///
    /// # Errors
    /// The file is not TOML, names an unknown section or key, or some value is not of its field's type: whichever
    /// layer it came from, and whether or not the role about to run uses it.
    pub fn resolve(sources: Sources<'_>) -> Result<Settings, ConfigError> {
        let mut values = BTreeMap::new();
        for (section, field) in fields() {
            values.insert((section.name, field.key), ((field.default)(), Origin::Default));
        }
        if let Some((path, text)) = &sources.file {
            lay_file(&mut values, path, text)?;
        }
        for (section, field) in fields() {
            let name = variable(section.name, field.key);
            if let Some(text) = (sources.env)(&name) {
                let value = typed_like(&(field.default)(), &text);
                values.insert((section.name, field.key), (value, Origin::Environment(name)));
            }
        }
        for (section, key, value) in sources.flags.0 {
            values.insert((section, key), (value, Origin::Flag(format!("--{}", key.replace('_', "-")))));
        }
        let settings = Settings { values };
        for (section, field) in fields() {
            settings.check(section, field)?;
        }
        Ok(settings)
    }

    /// A role's settings.
    ///
    /// # Errors
    /// A value is not of its field's type.
    pub fn section<T: FromSettings>(&self) -> Result<T, ConfigError> {
        T::from_settings(self)
    }

    /// One value, typed.
    ///
    /// # Errors
    /// `BadValue` when it is not a `T`.
    pub fn value<T: DeserializeOwned>(&self, section: &'static str, key: &'static str) -> Result<T, ConfigError> {
        let (value, origin) = match self.values.get(&(section, key)) {
            Some((value, origin)) => (value.clone(), origin.clone()),
            None => (Value::String(String::new()), Origin::Default),
        };
        T::deserialize(value).map_err(|error| bad_value(section, key, origin, &error.to_string()))
    }

    /// Nobody has chosen this value.
    pub fn is_default(&self, section: &'static str, key: &'static str) -> bool {
        matches!(self.values.get(&(section, key)), Some((_, Origin::Default)))
    }

    /// Every value with its origin, as TOML with comments; of one section, or of all.
    pub fn print(&self, only: Option<&str>) -> String {
        let mut text = String::new();
        for section in TABLES.iter().filter(|section| only.is_none_or(|only| only == section.name)) {
            text.push_str(&format!("[{}]\n", section.name));
            let lines: Vec<(String, &Origin)> = section.fields.iter().filter_map(|f| self.line(section, f)).collect();
            let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
            for (line, origin) in lines {
                text.push_str(&format!("{line:width$}  # {origin}\n"));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    fn line(&self, section: &Section, field: &Field) -> Option<(String, &Origin)> {
        let (value, origin) = self.values.get(&(section.name, field.key))?;
        Some((format!("{} = {value}", field.key), origin))
    }

    fn check(&self, section: &Section, field: &Field) -> Result<(), ConfigError> {
        match self.values.get(&(section.name, field.key)) {
            Some((value, origin)) => {
                (field.check)(value).map_err(|why| bad_value(section.name, field.key, origin.clone(), &why))
            }
            None => Ok(()),
        }
    }
}

/// The variable that sets a field: `HOLDFAST_LOG` for the common ones, `HOLDFAST_META_LISTEN` for a role's.
///
/// Other variables that begin with `HOLDFAST_` are left alone: Kubernetes makes some of its own (`HOLDFAST_META_PORT`)
/// for a service called `holdfast-meta`. No setting may be called `port`, `port_…` or `service_…` for that reason.
pub fn variable(section: &str, key: &str) -> String {
    match section {
        "common" => format!("HOLDFAST_{key}"),
        _ => format!("HOLDFAST_{section}_{key}"),
    }
    .to_ascii_uppercase()
}

/// The annotated file that says what is the case without a file.
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting of Holdfast with its default. A flag wins over the environment, the environment over this\n\
         # file, this file over the default. `holdfast config print` shows what holds and where it came from.\n\
         # It is read from --config, $HOLDFAST_CONFIG, or /etc/holdfast/holdfast.toml. An unknown key is an error.\n",
    );
    for section in TABLES {
        text.push('\n');
        for line in section.doc {
            text.push_str(&format!("#{line}\n"));
        }
        text.push_str(&format!("[{}]\n", section.name));
        for field in section.fields {
            text.push('\n');
            for line in field.doc {
                text.push_str(&format!("#{line}\n"));
            }
            text.push_str(&format!(
                "# ${}\n{} = {}\n",
                variable(section.name, field.key),
                field.key,
                (field.default)()
            ));
        }
    }
    text
}

fn fields() -> impl Iterator<Item = (&'static Section, &'static Field)> {
    TABLES.iter().flat_map(|section| section.fields.iter().map(move |field| (*section, field)))
}

fn lay_file(
    values: &mut BTreeMap<(&'static str, &'static str), (Value, Origin)>,
    path: &Path,
    text: &str,
) -> Result<(), ConfigError> {
    let file: Table = toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_path_buf(),
        why: first_line(error.message()),
    })?;
    for (name, table) in file {
        let section = TABLES.iter().find(|section| section.name == name);
        let (Some(section), Value::Table(table)) = (section, table) else {
            let known = TABLES.iter().map(|section| section.name).collect::<Vec<_>>().join(", ");
            return Err(ConfigError::UnknownSection { path: path.to_path_buf(), section: name, known });
        };
        for (key, value) in table {
            let Some(field) = section.fields.iter().find(|field| field.key == key) else {
                return Err(ConfigError::UnknownKey { path: path.to_path_buf(), section: name, key });
            };
            values.insert((section.name, field.key), (value, Origin::File(path.to_path_buf())));
        }
    }
    Ok(())
}

/// Text from the environment in the shape of the default: a list is separated by commas.
fn typed_like(default: &Value, text: &str) -> Value {
    match default {
        Value::Array(_) => {
            Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
        }
        Value::Boolean(_) => text.parse().map_or_else(|_| Value::from(text), Value::Boolean),
        Value::Integer(_) => text.parse().map_or_else(|_| Value::from(text), Value::Integer),
        _ => Value::from(text),
    }
}

fn bad_value(section: &str, key: &str, origin: Origin, why: &str) -> ConfigError {
    ConfigError::BadValue { section: section.to_string(), key: key.to_string(), origin, why: first_line(why) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_string()
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::File(path) => write!(out, "{}", path.display()),
            Origin::Environment(name) => write!(out, "${name}"),
            Origin::Flag(name) => out.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests;
