use super::*;
use crate::config::roles::{CommonConfig, MetaConfig, MountConfig, StoreConfig};
use crate::config::value::{ByteSize, LogFormat};

fn nothing(_: &str) -> Option<String> {
    None
}

fn from_file(text: &str) -> Result<Settings, ConfigError> {
    Settings::resolve(Sources { flags: Flags::default(), env: &nothing, file: Some(("h.toml".into(), text.into())) })
}

#[test]
fn defaults_are_of_their_types() {
    let settings = from_file("").unwrap();
    assert_eq!(settings.section::<MountConfig>().unwrap().memory, ByteSize(256 << 20));
    assert_eq!(settings.section::<CommonConfig>().unwrap().log_format, LogFormat::Text);
    assert!(settings.section::<StoreConfig>().unwrap().disks.is_empty());
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = "[meta]\ndir = \"/file\"\nlisten = \"file:1\"\nadvertise = \"file:2\"";
    let env = |name: &str| match name {
        "HOLDFAST_META_DIR" => Some("/env".to_string()),
        "HOLDFAST_META_LISTEN" => Some("env:1".to_string()),
        _ => None,
    };
    let mut flags = Flags::default();
    flags.set("meta", "dir", Some("/flag"));
    flags.set("meta", "advertise", None::<String>);
    let settings = Settings::resolve(Sources { flags, env: &env, file: Some(("h.toml".into(), file.into())) }).unwrap();
    let meta: MetaConfig = settings.section().unwrap();
    assert_eq!(meta.dir, PathBuf::from("/flag"));
    assert_eq!(meta.listen, "env:1");
    assert_eq!(meta.advertise, "file:2");
    let printed = settings.print(Some("meta"));
    assert!(printed.contains("# --dir\n"), "{printed}");
    assert!(printed.contains("# $HOLDFAST_META_LISTEN\n"), "{printed}");
    assert!(printed.contains("# h.toml\n"), "{printed}");
    assert!(!printed.contains("[store]"), "{printed}");
}

#[test]
fn lists_come_from_the_environment_with_commas() {
    let env = |name: &str| (name == "HOLDFAST_STORE_DISKS").then(|| "/a, /b".to_string());
    let settings = Settings::resolve(Sources { flags: Flags::default(), env: &env, file: None }).unwrap();
    assert_eq!(settings.section::<StoreConfig>().unwrap().disks, [PathBuf::from("/a"), PathBuf::from("/b")]);
}

#[test]
fn unknown_names_are_refused_by_name() {
    let text = |source: &str| from_file(source).unwrap_err().to_string();
    assert!(text("[meta]\nlissten = \"x\"").contains("meta.lissten"));
    assert!(text("[metta]\n").contains("[metta]"));
    assert!(text("log = \"info\"").contains("[log]"));
    assert!(text("[meta").contains("not valid TOML"));
}

#[test]
fn bad_values_are_refused_with_their_origin() {
    let error = from_file("[mount]\nmemory = \"lots\"").unwrap_err().to_string();
    assert!(error.contains("mount.memory") && error.contains("h.toml") && error.contains("lots"), "{error}");
    let env = |name: &str| (name == "HOLDFAST_MOUNT_THREADS").then(|| "many".to_string());
    let error = Settings::resolve(Sources { flags: Flags::default(), env: &env, file: None }).unwrap_err().to_string();
    assert!(error.contains("mount.threads") && error.contains("$HOLDFAST_MOUNT_THREADS"), "{error}");
}

#[test]
fn the_printed_settings_are_a_file_that_means_the_same() {
    let printed = from_file("[mount]\nmemory = \"1GiB\"").unwrap().print(None);
    let again = from_file(&printed).unwrap();
    assert_eq!(again.section::<MountConfig>().unwrap().memory, ByteSize(1 << 30));
}

/// Written anew by `holdfast config example > deploy/examples/holdfast.toml`.
#[test]
fn the_example_is_the_documentation() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/holdfast.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, example());
    let settings = from_file(&text).unwrap();
    let defaults = from_file("").unwrap();
    for (key, (value, _)) in &defaults.values {
        assert_eq!(&settings.values[key].0, value, "{key:?}");
    }
}

#[test]
fn no_setting_collides_with_the_variables_of_kubernetes() {
    for (_, field) in fields() {
        assert!(!field.key.starts_with("port") && !field.key.starts_with("service"), "{}", field.key);
    }
}
