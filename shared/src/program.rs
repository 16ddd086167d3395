//! How both programs begin and end: command line, settings and logs; signals; exit codes.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub use crate::findings::Findings;
pub use crate::settings::cli::Task;
use crate::settings::{Program, Settings, cli};
use crate::supervisor::Supervisor;
use crate::telemetry;

/// A clean stop.
pub const CLEAN: u8 = 0;
/// Any failure that is not the configuration's.
pub const FAILED: u8 = 1;
/// A configuration error; every bad setting has been listed.
pub const BAD_CONFIGURATION: u8 = 2;

/// A program that has read its command line and its settings.
#[derive(Debug)]
pub struct Begun {
    /// What it was told.
    pub settings: Settings,
    /// What it shall do.
    pub task: Task,
    /// Who is told how it fares.
    pub supervisor: Supervisor,
}

/// Reads the command line and the settings and starts the logs.
///
/// # Errors
/// The exit code, after `--help`, `--version` or a list of what is wrong has been printed.
pub fn begin(program: Program, name: &'static str, about: &'static str) -> Result<Begun, ExitCode> {
    let task = cli::parse(name, about, std::env::args_os())?;
    let settings = Settings::load(program, environment()).map_err(|error| refuse(&error))?;
    telemetry::init(&settings.log);
    Ok(Begun { settings, task, supervisor: Supervisor::named_by(environment()) })
}

/// Says on standard error what is wrong with the configuration.
#[expect(clippy::print_stderr, reason = "the settings say how to log, and they are what is wrong")]
pub fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(BAD_CONFIGURATION)
}

/// The exit code of a program that has run; why it failed is logged.
pub fn ended<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::from(FAILED)
    })
}

/// SIGTERM and SIGINT. From [`StopSignals::listen`] on they end nothing by themselves, and none is missed.
#[derive(Debug)]
pub struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    /// Listens for them. First thing: the kernel keeps a signal that is not listened for from the first process of a
    /// container, and ends any other at once.
    ///
    /// # Errors
    /// When the signals cannot be listened for.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Ends at the first of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// The environment; a variable that is not UTF-8 is no setting of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
