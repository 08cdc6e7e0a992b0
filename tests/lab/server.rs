//! The real program in the middle of the lab, its metrics and its records.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Connection as _, SqliteConnection};

use super::browser::Browser;
use super::{Host, Lab, SERVER};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN_SECRET: &str = "another secret of a laboratory, longer than 32";

/// The first row of a query; `None` while there is none, or no database yet.
pub(crate) fn row(database: &Path, query: &'static str) -> Option<SqliteRow> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = SqliteConnectOptions::new().filename(database);
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await.ok()?;
        let row = sqlx::query(query).fetch_optional(&mut connection).await.ok().flatten();
        connection.close().await.ok()?;
        row
    })
}

/// Looks again and again until `look` finds something, for a minute.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A scrape, as text.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn scrape(browser: &mut Browser) -> Self {
        Self(browser.fetch(&format!("http://{SERVER}:9090/metrics")).expect("metrics answer"))
    }

    /// The sum over all series of a metric.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values =
            series.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

/// The program. Its ports are fixed: nobody else lives in that namespace.
pub(crate) struct Server {
    program: Child,
    scratch: PathBuf,
    /// Call records.
    pub(crate) database: PathBuf,
}

impl Server {
    /// Starts it with a configuration and a database in `scratch`, where an earlier one may have left its own.
    pub(crate) fn start(lab: &Lab, scratch: &Path) -> Self {
        Self::start_with(lab, scratch, "")
    }

    /// The same with more environment variables, like `PASSERELLE__TURN__CREDENTIAL_TTL=1m`.
    pub(crate) fn start_with(lab: &Lab, scratch: &Path, environment: &str) -> Self {
        let (config, database) = (scratch.join("passerelle.toml"), scratch.join("calls.db"));
        std::fs::write(&config, configuration(&database) + &certificate(scratch)).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        let log = |name: &str| {
            let file = File::options().create(true).append(true).open(scratch.join(name));
            file.unwrap()
        };
        let program = lab
            .command(Host::Server, env!("CARGO_BIN_EXE_passerelle"))
            .args(["run", "--config"])
            .arg(&config)
            .current_dir(scratch)
            .envs(environment.split_whitespace().filter_map(|pair| pair.split_once('=')))
            .stdin(Stdio::null())
            .stdout(log("server.log"))
            .stderr(log("server.err"))
            .spawn()
            .unwrap();
        Self { program, scratch: scratch.to_owned(), database }
    }

    /// Ends it without giving it a chance to do anything about it.
    pub(crate) fn kill(mut self) {
        // `ip netns exec` becomes the program, so this is its own process.
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    /// Waits until it answers a browser's driver.
    pub(crate) fn wait_until_ready(&mut self, from: &mut Browser) {
        eventually("the server is ready", || {
            let ended = self.program.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended early: {ended:?}");
            from.fetch(&format!("http://{SERVER}:8080/readyz"))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        if std::thread::panicking() {
            for log in ["server.log", "server.err"].map(|name| self.scratch.join(name)) {
                eprintln!("--- {}\n{}", log.display(), std::fs::read_to_string(&log).unwrap_or_default());
            }
        }
    }
}

/// A token that the server accepts.
pub(crate) fn token(user: &str) -> String {
    let expires =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let claims = serde_json::json!({ "sub": user, "exp": expires });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// Makes a certificate, once, and the table that names it.
fn certificate(scratch: &Path) -> String {
    let (cert, key) = (scratch.join("cert.pem"), scratch.join("key.pem"));
    if !cert.exists() {
        let made = rcgen::generate_simple_self_signed([SERVER.to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
    }
    format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n")
}

fn configuration(database: &Path) -> String {
    format!(
        r#"
[listen]
udp = ["{SERVER}:3478"]
tcp = ["{SERVER}:3478"]
tls = ["{SERVER}:443"]
http = ["{SERVER}:8080"]
metrics = ["{SERVER}:9090"]
[public]
hosts = ["{SERVER}"]
[turn]
secrets = ["a secret of a laboratory, longer than 32 bytes"]
[relay]
addresses = ["{SERVER}"]
[auth]
anonymous = "any"
anonymous_in_public = true
[auth.jwt]
secret = "{TOKEN_SECRET}"
[store]
url = "sqlite:{}"
"#,
        database.display()
    )
}
