//! The command line of both programs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use super::catalogue;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Do the program's work.
    Run,
    /// Check the settings and the connections.
    Check,
    /// Ask the program that runs with these settings whether it lives.
    Health,
}

/// Reads a command line.
///
/// # Errors
/// The exit code, after `--help`, `--version` or what is wrong has been printed.
pub fn parse(
    name: &'static str,
    about: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Task, ExitCode> {
    let check = Arg::new("check")
        .long("check")
        .action(ArgAction::SetTrue)
        .help("Check the settings, the queue, the relay and the templates, print what was found, and exit");
    let health = Arg::new("health")
        .long("health")
        .action(ArgAction::SetTrue)
        .conflicts_with("check")
        .help("Ask the program that runs with these settings for its /healthz, and exit 0 or 1");
    let command = Command::new(name).about(about).version(env!("CARGO_PKG_VERSION")).args([check, health]);
    match command.after_help(catalogue::help()).try_get_matches_from(args) {
        Ok(matches) if matches.get_flag("check") => Ok(Task::Check),
        Ok(matches) if matches.get_flag("health") => Ok(Task::Health),
        Ok(_) => Ok(Task::Run),
        Err(asked) => {
            // A terminal that is gone needs no help.
            asked.print().unwrap_or_default();
            Err(ExitCode::from(if asked.use_stderr() { 2 } else { 0 }))
        }
    }
}
