//! What a program that only looks around tells of it.

use std::process::ExitCode;

/// What `--check` or `--health` found, line by line.
#[derive(Debug, Default)]
pub struct Findings {
    lines: Vec<String>,
    is_bad: bool,
}

impl Findings {
    /// Notes what is well, or what is not.
    pub fn note(&mut self, what: &str, found: Result<String, String>) {
        let (mark, text) = match found {
            Ok(text) => ("ok    ", text),
            Err(text) => {
                self.is_bad = true;
                ("FAILED", text)
            }
        };
        self.lines.push(format!("{mark} {what}: {text}"));
    }

    /// Prints everything; 0 where all is well, else 1.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "this is what --check and --health are for")]
    pub fn report(self) -> ExitCode {
        for line in &self.lines {
            println!("{line}");
        }
        if self.is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
