//! Log lines. Owns the subscriber, its filter and the shortening of addresses. Must not decide what is logged: whoever
//! owns a fact says it with `tracing`. Driven by `cli`, which calls [`init`] once.
//!
//! What clients send may reach a line only as a field: control characters in it are escaped, so that nobody can forge
//! a line or talk to the operator's terminal.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Configuration of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Text or JSON.
    pub format: Format,
    /// Levels, in the syntax of [`EnvFilter`].
    pub filter: String,
    /// Whether addresses are shortened.
    pub addresses: Addresses,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// How much of an address is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// /24 and /48.
    Short,
    /// All of it.
    Full,
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not in the syntax of [`EnvFilter`].
    #[error("{0}: write a level (error, warn, info, debug, trace) or `info,passerelle::turn=debug`")]
    Filter(String),
    /// Another log was started before.
    #[error("a log runs already")]
    Running,
}

static FULL_ADDRESSES: AtomicBool = AtomicBool::new(false);

/// Changes the filter of a running log.
type SetFilter = Arc<dyn Fn(EnvFilter) + Send + Sync>;

/// The running log, to change its filter and how it shows addresses.
#[derive(Clone)]
pub struct Log(SetFilter);

impl Log {
    /// Goes on with another filter (see [`parse_filter`]) and other addresses; the format stays.
    pub fn reconfigure(&self, filter: EnvFilter, addresses: Addresses) {
        (self.0)(filter);
        FULL_ADDRESSES.store(addresses == Addresses::Full, Ordering::Relaxed);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// Starts the log of the process, on standard error.
///
/// # Errors
/// The filter is unreadable, or a log runs already.
pub fn init(config: &Config) -> Result<Log, LogError> {
    FULL_ADDRESSES.store(config.addresses == Addresses::Full, Ordering::Relaxed);
    let terminal = std::io::stderr().is_terminal();
    let (dispatch, log) = subscriber(config, terminal, std::io::stderr)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Running)?;
    Ok(log)
}

/// Checks a filter without using it.
///
/// # Errors
/// The filter is unreadable.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|error| LogError::Filter(error.to_string()))
}

fn subscriber<W>(config: &Config, terminal: bool, writer: W) -> Result<(tracing::Dispatch, Log), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(&config.filter)?)
        .with_ansi(terminal)
        .with_writer(writer);
    let text = match config.format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    Ok(if text {
        let fields = debug_fn(|line: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
            write_field(line, field.name(), value)
        });
        let builder = builder.fmt_fields(fields).with_filter_reloading();
        let filter = builder.reload_handle();
        (builder.into(), Log(Arc::new(move |new| drop(filter.reload(new)))))
    } else {
        let builder = builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_filter_reloading();
        let filter = builder.reload_handle();
        (builder.into(), Log(Arc::new(move |new| drop(filter.reload(new)))))
    })
}

fn write_field(line: &mut Writer<'_>, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
    let mut line = Escape(line);
    if name == "message" { write!(line, "{value:?}") } else { write!(line, " {name}={value:?}") }
}

/// Escapes control characters on their way into a line.
struct Escape<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut chars = part.chars();
            match chars.next_back() {
                Some(last) if last.is_control() => {
                    self.0.write_str(chars.as_str())?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// An address as the log may show it: `198.51.100.0/24`, `2001:db8:1::/48`, or all of it when `log.addresses` says so.
pub fn address(ip: IpAddr) -> impl fmt::Display + fmt::Debug {
    ShownAddress { ip: ip.to_canonical(), full: FULL_ADDRESSES.load(Ordering::Relaxed) }
}

/// The network of an address, /24 or /48, whatever `log.addresses` says.
pub fn network(ip: IpAddr) -> impl fmt::Display + fmt::Debug {
    ShownAddress { ip: ip.to_canonical(), full: false }
}

struct ShownAddress {
    ip: IpAddr,
    full: bool,
}

impl fmt::Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            ip if self.full => ip.fmt(f),
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0))
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                write!(f, "{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
        }
    }
}

impl fmt::Debug for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, body: impl FnOnce()) -> String {
        logged_with(format, filter, |_| body())
    }

    fn logged_with(format: Format, filter: &str, body: impl FnOnce(&Log)) -> String {
        let lines = Lines::default();
        let sink = lines.clone();
        let config = Config { format, filter: filter.into(), addresses: Addresses::Short };
        let (dispatch, log) = subscriber(&config, false, move || sink.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || body(&log));
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "eve\nINFO forged\r\u{1b}[31m\u{7f}\u{9b}\u{0}";

    #[test]
    fn a_hostile_field_stays_on_its_line() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, "info", || {
                tracing::info!(name = HOSTILE, shown = %HOSTILE, "joined {HOSTILE}");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            let controls: Vec<char> = text.trim_end().chars().filter(|c| c.is_control()).collect();
            assert!(controls.iter().all(|c| *c > '\u{7e}') && format == Format::Json || controls.is_empty());
            assert!(text.contains("eve"), "{text}");
        }
    }

    #[test]
    fn json_lines_carry_fields_at_the_top() {
        let line = logged(Format::Json, "info", || tracing::info!(listener = "udp", "listening"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "listening");
        assert_eq!(value["listener"], "udp");
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn text_lines_read_message_first() {
        let line = logged(Format::Text, "info", || tracing::info!(listener = "udp", "listening"));
        assert!(line.trim_end().ends_with("listening listener=\"udp\""), "{line}");
    }

    #[test]
    fn a_filter_silences_a_part() {
        let text = logged(Format::Text, "info,quiet=off", || {
            tracing::info!(target: "quiet", "hidden");
            tracing::debug!("hidden");
            tracing::info!("shown");
        });
        assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
        assert!(parse_filter("info,=nonsense=").is_err());
    }

    #[test]
    fn a_running_log_takes_another_filter() {
        for format in [Format::Text, Format::Json] {
            let text = logged_with(format, "info", |log| {
                tracing::debug!("hidden");
                log.reconfigure(parse_filter("debug").unwrap(), Addresses::Short);
                tracing::debug!("shown");
                log.reconfigure(parse_filter("warn").unwrap(), Addresses::Short);
                tracing::info!("hidden");
            });
            assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
        }
    }

    #[test]
    fn addresses_are_shortened_unless_full() {
        let shown = |ip: &str, full| ShownAddress { ip: ip.parse().unwrap(), full }.to_string();
        assert_eq!(shown("198.51.100.77", false), "198.51.100.0/24");
        assert_eq!(shown("2001:db8:1:2:3::4", false), "2001:db8:1::/48");
        assert_eq!(shown("198.51.100.77", true), "198.51.100.77");
        assert_eq!(address("::ffff:198.51.100.77".parse().unwrap()).to_string(), "198.51.100.0/24");
    }
}
