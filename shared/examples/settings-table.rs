//! Writes the settings' table into the README: `cargo run -p shared --example settings-table`.

use std::io;

fn main() -> io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path)?;
    let (begin, end) = ("<!-- settings:begin -->\n", "<!-- settings:end -->");
    let parts = text.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    let (head, tail) = parts.ok_or_else(|| io::Error::other("README.md has no place for the table"))?;
    std::fs::write(path, format!("{head}{begin}{}{end}{tail}", shared::settings::readme_table()))
}
