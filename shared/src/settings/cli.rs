//! The command line of both programs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use super::catalogue;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cli {
    /// Only check the settings and the connections.
    pub check: bool,
}

/// Reads a command line.
///
/// # Errors
/// The exit code, after `--help`, `--version` or what is wrong has been printed.
pub fn parse(
    name: &'static str,
    about: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Cli, ExitCode> {
    let check = Arg::new("check")
        .long("check")
        .action(ArgAction::SetTrue)
        .help("Check the settings, the queue, the relay and the templates, print what was found, and exit");
    let command = Command::new(name).about(about).version(env!("CARGO_PKG_VERSION")).arg(check);
    match command.after_help(catalogue::help()).try_get_matches_from(args) {
        Ok(matches) => Ok(Cli { check: matches.get_flag("check") }),
        Err(asked) => {
            // A terminal that is gone needs no help.
            asked.print().unwrap_or_default();
            Err(ExitCode::from(if asked.use_stderr() { 2 } else { 0 }))
        }
    }
}
