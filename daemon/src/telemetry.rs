//! Logs: to the systemd journal when started by systemd, else to standard error.

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging. `LADEWART_LOG` selects what is logged, e.g. `info,ladewartd::ocpp=debug`.
pub fn start() {
    let filter = || EnvFilter::try_from_env("LADEWART_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let plain = journald.is_none().then(|| {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_filter(filter())
    });
    tracing_subscriber::registry().with(journald.map(|l| l.with_filter(filter()))).with(plain).init();
}
