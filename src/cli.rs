//! The command line. Owns standard output and the exit code: 0 done, 1 failed, 2 wrong configuration or arguments.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a command line is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::app::{self, COMMIT, VERSION};
use crate::auth::{Minted, SharedSecrets};
use crate::config::{self, Config, Flag, Host, Sources};

/// STUN, TURN relay, signaling of WebRTC calls, call records and metrics in one process.
#[derive(Debug, Parser)]
#[command(name = "passerelle", version = VERSION, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the default).
    Run(Run),
    /// Check the configuration and stop.
    CheckConfig(Source),
    /// Print a TURN REST credential and ready iceServers as JSON.
    Credentials(Credentials),
    /// Print version and commit.
    Version,
}

#[derive(Debug, Args)]
struct Source {
    /// Configuration file (TOML). Without one: development values.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// Log level, wins over log.level.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Address of signaling, REST and pages, wins over listen.http.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
}

#[derive(Debug, Args)]
struct Credentials {
    /// User the credential is for: quotas and logs know it by this name.
    #[arg(long, value_name = "NAME", value_parser = user_name)]
    user: String,
    /// How long it can start allocations.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    source: Source,
}

fn user_name(name: &str) -> Result<String, &'static str> {
    let valid =
        !name.is_empty() && name.len() <= 128 && !name.contains(':') && !name.contains(char::is_control);
    valid.then(|| name.to_owned()).ok_or("1 to 128 bytes without colons and control characters")
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(run) => {
            let sources = sources(run.source, run_flags(run.log_level, run.http));
            with_config(&sources, |config| serve(config, sources.clone()))
        }
        Command::CheckConfig(source) => with_config(&sources(source, Vec::new()), |config| {
            for notice in &config.notices {
                eprintln!("note: {notice}");
            }
            println!("the configuration is good");
            ExitCode::SUCCESS
        }),
        Command::Credentials(command) => {
            if command.source.config.is_none() && std::env::var_os("PASSERELLE__TURN__SECRETS").is_none() {
                return failed(
                    2,
                    "without --config the server makes up its own secret: name the file it runs with",
                );
            }
            with_config(&sources(command.source, Vec::new()), |config| {
                credentials(&config, &command.user, command.ttl)
            })
        }
        Command::Version => {
            println!("passerelle {VERSION} ({COMMIT})");
            ExitCode::SUCCESS
        }
    }
}

fn failed(code: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("passerelle: {error}");
    ExitCode::from(code)
}

fn run_flags(log_level: Option<String>, http: Option<String>) -> Vec<Flag> {
    [("--log-level", "log.level", log_level), ("--http", "listen.http", http)]
        .into_iter()
        .filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
        .collect()
}

fn sources(source: Source, flags: Vec<Flag>) -> Sources {
    // A variable that is not UTF-8 cannot be a value; its replacement characters then say so in the error.
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    Sources { file: source.config, environment, flags }
}

fn with_config(sources: &Sources, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match config::load(sources, &Host::read()) {
        Ok(config) => then(config),
        Err(error) => {
            for problem in &error.problems {
                eprintln!("{problem}");
            }
            ExitCode::from(2)
        }
    }
}

fn serve(config: Config, sources: Sources) -> ExitCode {
    match app::run(config, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(1, error),
    }
}

fn credentials(config: &Config, user: &str, ttl: Duration) -> ExitCode {
    let now = jiff::Timestamp::now().as_second().cast_unsigned();
    let secrets = SharedSecrets::new(config.turn_secrets.clone());
    let expires = now.saturating_add(ttl.as_secs());
    let Some(Minted { username, password: credential }) = secrets.mint(user, None, expires) else {
        return failed(2, "there is no shared secret: set turn.secrets or turn.secrets_file");
    };
    let urls = config.ice_urls(&config.net.udp, &config.net.tcp, &config.net.tls);
    let output = json!({
        "username": username,
        "credential": credential,
        "ttl": ttl.as_secs(),
        "iceServers": [
            { "urls": urls.stun },
            { "urls": urls.turn, "username": username, "credential": credential },
        ],
    });
    println!("{output:#}");
    ExitCode::SUCCESS
}
