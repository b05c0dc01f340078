//! Where credentials lie for those that make themselves: a directory that several containers share, or a Secret of Kubernetes.
//!
//! A credential is found by its file's name. What somebody else has put meanwhile is never overwritten. A Secret is read and patched
//! with the rights of this pod's service account, which may be bound to that one Secret; it has to be there, with or without content.
//! Blocks: for commands that do nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::host::file::write_private;

/// What Kubernetes gives each pod.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PATIENCE: Duration = Duration::from_secs(10);
/// A Secret holds a MiB at most, in base64.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A place for credentials.
#[derive(Debug)]
pub enum Vault {
    Dir(PathBuf),
    Secret(Secret),
}

/// A Secret, and how it is reached.
#[derive(Debug)]
pub struct Secret {
    url: String,
    account: PathBuf,
    agent: Agent,
}

/// Why a vault cannot be used; one sentence without anything that is secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("this is no pod of Kubernetes: {0}")]
    NoPod(String),
    #[error("the Secret {url} cannot be reached: {why}")]
    Unreachable { url: String, why: String },
    #[error("the Secret {url} is refused: {status} {why}")]
    Refused { url: String, status: u16, why: String },
    #[error("{0} in the vault is no text")]
    NoText(String),
}

impl Vault {
    /// The Secret of a name, in the namespace of this pod.
    ///
    /// # Errors
    /// This is no pod, or its account cannot be used.
    pub fn secret(name: &str) -> Result<Vault, VaultError> {
        let variable = |name: &str| std::env::var(name).map_err(|_| VaultError::NoPod(format!("there is no ${name}")));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        // An address of version 6 stands in brackets.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Secret::at(&format!("https://{host}:{port}"), Path::new(ACCOUNT_DIR), name).map(Vault::Secret)
    }

    /// What lies there under a name; `None` where nothing does.
    ///
    /// # Errors
    /// The vault cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<String>, VaultError> {
        match self {
            Vault::Dir(dir) => read_file(&dir.join(name)),
            Vault::Secret(secret) => Ok(secret.read()?.text(name)?.filter(|text| !text.is_empty())),
        }
    }

    /// Puts a text there in place of `before`. `false`: by then something else lies there, and stays.
    ///
    /// # Errors
    /// The vault cannot be read or written.
    pub fn put(&self, name: &str, text: &str, before: Option<&str>) -> Result<bool, VaultError> {
        match self {
            Vault::Dir(dir) => {
                let path = dir.join(name);
                if read_file(&path)?.as_deref() != before {
                    return Ok(false);
                }
                let written = fs::create_dir_all(dir).and_then(|()| write_private(&path, text.as_bytes()));
                written.map(|()| true).map_err(|error| VaultError::File { path, error })
            }
            Vault::Secret(secret) => secret.put(name, text, before),
        }
    }
}

fn read_file(path: &Path) -> Result<Option<String>, VaultError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VaultError::File { path: path.to_path_buf(), error }),
    }
}

/// A Secret as it was read: its content, and which version of it that is.
struct Content {
    document: Value,
}

impl Content {
    fn text(&self, name: &str) -> Result<Option<String>, VaultError> {
        let Some(coded) = self.document["data"][name].as_str() else { return Ok(None) };
        let fault = || VaultError::NoText(name.to_string());
        let bytes = BASE64.decode(coded.as_bytes()).map_err(|_| fault())?;
        String::from_utf8(bytes).map(Some).map_err(|_| fault())
    }
}

impl Secret {
    fn at(server: &str, account: &Path, name: &str) -> Result<Secret, VaultError> {
        let read = |file: &str| {
            let path = account.join(file);
            fs::read_to_string(&path).map_err(|error| VaultError::File { path, error })
        };
        let url = format!("{server}/api/v1/namespaces/{}/secrets/{name}", read("namespace")?.trim());
        let authority = Certificate::from_pem(read("ca.crt")?.as_bytes())
            .map_err(|error| VaultError::NoPod(format!("its authority is no certificate: {error}")))?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
        // Neither a proxy nor a redirection has to know this pod's token.
        let config =
            Agent::config_builder().tls_config(tls).timeout_global(Some(PATIENCE)).proxy(None).max_redirects(0);
        let agent = config.http_status_as_error(false).build().new_agent();
        Ok(Secret { url, account: account.to_path_buf(), agent })
    }

    /// As it is now: it is given anew while the pod lives.
    fn authorization(&self) -> Result<String, VaultError> {
        let path = self.account.join("token");
        let token = fs::read_to_string(&path).map_err(|error| VaultError::File { path, error })?;
        Ok(format!("Bearer {}", token.trim()))
    }

    fn read(&self) -> Result<Content, VaultError> {
        let asked = self.agent.get(&self.url).header("Authorization", self.authorization()?).call();
        self.answered(asked).map(|document| Content { document })
    }

    fn put(&self, name: &str, text: &str, before: Option<&str>) -> Result<bool, VaultError> {
        let content = self.read()?;
        if content.text(name)?.filter(|text| !text.is_empty()).as_deref() != before {
            return Ok(false);
        }
        let version = &content.document["metadata"]["resourceVersion"];
        let patch =
            json!({ "metadata": { "resourceVersion": version }, "data": { name: BASE64.encode(text.as_bytes()) } });
        let asked = self.agent.patch(&self.url).header("Authorization", self.authorization()?);
        let asked = asked.header("Content-Type", "application/merge-patch+json").send(patch.to_string());
        match self.answered(asked) {
            Ok(_) => Ok(true),
            // Of another version by now.
            Err(VaultError::Refused { status: 409, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn answered(&self, asked: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, VaultError> {
        let unreachable =
            |error: &dyn std::fmt::Display| VaultError::Unreachable { url: self.url.clone(), why: error.to_string() };
        let mut answer = asked.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| unreachable(&error))?;
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(document);
        }
        let why = document["message"].as_str().unwrap_or_default().to_string();
        Err(VaultError::Refused { url: self.url.clone(), status: status.as_u16(), why })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    /// As much of an API server as a Secret needs: one document, whose version goes up with each patch.
    fn serve(document: Arc<Mutex<Value>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut head, mut bytes) = (Vec::new(), 0);
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    let line = line.trim_end().to_string();
                    if line.is_empty() {
                        break;
                    }
                    let lower = line.to_ascii_lowercase();
                    bytes = lower.strip_prefix("content-length: ").map_or(bytes, |count| count.parse().unwrap());
                    head.push(lower);
                }
                let mut body = vec![0; bytes];
                stream.read_exact(&mut body).unwrap();
                let (status, answer) = answer_to(&head, &body, &mut document.lock().unwrap());
                let answer = answer.to_string();
                let head =
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
                stream.get_mut().write_all((head + &answer).as_bytes()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn answer_to(head: &[String], body: &[u8], document: &mut Value) -> (&'static str, Value) {
        if !head.contains(&"authorization: bearer let-me".to_string()) {
            return ("403 Forbidden", json!({"message": "who is that?"}));
        }
        if !head[0].contains(" /api/v1/namespaces/storage/secrets/admin ") {
            return ("404 Not Found", json!({"message": "secrets not found"}));
        }
        if head[0].starts_with("patch") {
            let patch: Value = serde_json::from_slice(body).unwrap();
            if patch["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"] {
                return ("409 Conflict", json!({"message": "of another version"}));
            }
            for (key, value) in patch["data"].as_object().unwrap() {
                document["data"][key] = value.clone();
            }
            document["metadata"]["resourceVersion"] = json!("2");
        }
        ("200 OK", document.clone())
    }

    fn secret(server: &str, account: &Path, name: &str) -> Vault {
        let authority = rcgen::generate_simple_self_signed(vec!["kubernetes".to_string()]).unwrap();
        fs::write(account.join("namespace"), "storage").unwrap();
        fs::write(account.join("token"), "let-me\n").unwrap();
        fs::write(account.join("ca.crt"), authority.cert.pem()).unwrap();
        Vault::Secret(Secret::at(server, account, name).unwrap())
    }

    fn keeps_what_it_is_given(vault: &Vault) {
        assert_eq!(vault.get("admin.credential").unwrap(), None);
        assert!(vault.put("admin.credential", "first\n", None).unwrap());
        assert_eq!(vault.get("admin.credential").unwrap().as_deref(), Some("first\n"));
        assert!(!vault.put("admin.credential", "other", None).unwrap(), "something is there");
        assert!(!vault.put("admin.credential", "other", Some("zeroth")).unwrap(), "something else is there");
        assert_eq!(vault.get("admin.credential").unwrap().as_deref(), Some("first\n"));
        assert!(vault.put("admin.credential", "second", Some("first\n")).unwrap());
        assert_eq!(vault.get("admin.credential").unwrap().as_deref(), Some("second"));
        assert_eq!(vault.get("client.credential").unwrap(), None);
    }

    #[test]
    fn a_directory_keeps_credentials() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        keeps_what_it_is_given(&Vault::Dir(dir.path().join("vault")));
        let mode = fs::metadata(dir.path().join("vault/admin.credential")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_secret_keeps_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let document = Arc::new(Mutex::new(json!({"metadata": {"resourceVersion": "1"}})));
        let server = serve(document.clone());
        let vault = secret(&server, dir.path(), "admin");
        keeps_what_it_is_given(&vault);
        document.lock().unwrap()["data"]["admin.credential"] = json!("not base64!");
        assert!(matches!(vault.get("admin.credential"), Err(VaultError::NoText(_))));
    }

    #[test]
    fn what_is_refused_says_why_and_nothing_secret() {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(Arc::new(Mutex::new(json!({}))));
        let error = secret(&server, dir.path(), "other").get("x").unwrap_err();
        assert!(matches!(error, VaultError::Refused { status: 404, .. }), "{error}");
        let vault = secret(&server, dir.path(), "admin");
        fs::write(dir.path().join("token"), "wrong").unwrap();
        let error = vault.get("x").unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("who is that?") && !error.contains("wrong"), "{error}");
        assert!(matches!(secret("http://127.0.0.1:9", dir.path(), "x").get("x"), Err(VaultError::Unreachable { .. })));
    }
}
