//! The README against itself, its translation and the code: what it shows must be so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// A fenced block: the language behind the fence, and its lines.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    lines: Vec<String>,
}

/// The blocks, and what stands outside of them.
fn split(markdown: &str) -> (Vec<Block>, Vec<&str>) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), Vec::new(), None::<Block>);
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language: language.to_owned(), lines: Vec::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => prose.push(line),
        }
    }
    assert_eq!(open, None, "a block has no end");
    (blocks, prose)
}

/// The commands of a shell block, without the comments, which are translated.
fn commands(block: &Block) -> Vec<String> {
    let without_comment = |line: &String| line.split("  #").next().unwrap_or_default().trim_end().to_owned();
    block.lines.iter().map(without_comment).collect()
}

fn example(markdown: &str, name: &str) -> Value {
    let (_, rest) = markdown.split_once(&format!("<!-- example: {name} -->\n```json\n")).unwrap();
    let (json, _) = rest.split_once("\n```\n").unwrap();
    serde_json::from_str(json).unwrap()
}

/// The words in `code` type of the table under this heading, from its first column.
fn first_column(markdown: &str, heading: &str) -> BTreeSet<String> {
    let (_, rest) = markdown.split_once(&format!("\n{heading}\n")).unwrap();
    let section = rest.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| code(row.split(" | ").next().unwrap())).map(ToOwned::to_owned).collect()
}

fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_translation_has_the_same_parts_in_the_same_order() {
    let (english, chinese) = (text("README.md"), text("README.zh-CN.md"));
    let ((blocks, prose), (blocks_zh, prose_zh)) = (split(&english), split(&chinese));
    let levels = |prose: &[&str]| -> Vec<usize> {
        let headings = prose.iter().filter(|line| line.starts_with('#'));
        headings.map(|line| line.len() - line.trim_start_matches('#').len()).collect()
    };
    assert_eq!(levels(&prose), levels(&prose_zh), "headings");
    let starts = |prose: &[&str], start: &str| prose.iter().filter(|line| line.starts_with(start)).count();
    for start in ["- ", "| ", "1. ", "2. ", "3. ", "<!-- "] {
        assert_eq!(starts(&prose, start), starts(&prose_zh, start), "lines that start with {start:?}");
    }
    assert_eq!(blocks.len(), blocks_zh.len());
    for (block, block_zh) in blocks.iter().zip(&blocks_zh) {
        assert_eq!(block.language, block_zh.language);
        assert_eq!(commands(block), commands(block_zh));
    }
}

#[test]
fn the_translation_names_the_same_things() {
    let names = |markdown: &str| -> BTreeSet<String> {
        let (_, prose) = split(markdown);
        let spans = prose.iter().flat_map(|line| code(line));
        // What is written in words within code type is translated.
        spans.filter(|span| span.is_ascii() && !span.contains("<up to")).map(ToOwned::to_owned).collect()
    };
    let (english, chinese) = (names(&text("README.md")), names(&text("README.zh-CN.md")));
    let missing: Vec<_> = english
        .symmetric_difference(&chinese)
        .filter(|name| !name.contains('<') && !name.starts_with("README"))
        .collect();
    assert!(missing.is_empty(), "in one of the two only: {missing:?}");
}

#[test]
fn the_examples_are_the_same_in_both_languages_and_in_the_curl_command() {
    let english = text("README.md");
    for name in ["body", "template"] {
        assert_eq!(example(&english, name), example(&text("README.zh-CN.md"), name), "{name}");
    }
    let (_, rest) = english.split_once("--data-binary @- <<'JSON'\n").unwrap();
    let (json, _) = rest.split_once("\nJSON\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), example(&english, "body"));
}

#[test]
fn the_template_of_the_example_is_shipped() {
    let example = example(&text("README.md"), "template");
    let template = example["template_id"].as_str().unwrap();
    assert!(root().join("shared/templates").join(template).is_file(), "{template}");
}

#[test]
fn every_link_leads_somewhere() {
    for name in ["README.md", "README.zh-CN.md"] {
        let markdown = text(name);
        let (_, prose) = split(&markdown);
        let anchors: BTreeSet<String> = prose
            .iter()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
            .collect();
        for target in markdown.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            match target.strip_prefix('#') {
                Some(anchor) => assert!(anchors.contains(anchor), "{name}: #{anchor}"),
                None => assert!(root().join(target).exists(), "{name}: {target}"),
            }
        }
    }
}

#[test]
fn every_script_named_is_there() {
    for script in ["scripts/demo", "scripts/test", "scripts/bench", ".ci/run"] {
        assert!(text("README.md").contains(script), "{script} is not named");
        assert!(root().join(script).is_file(), "{script}");
    }
}

#[test]
fn the_metrics_are_those_of_the_code() {
    let written: BTreeSet<String> = first_column(&text("README.md"), "## Metrics")
        .iter()
        .map(|name| name.split('{').next().unwrap_or_default().to_owned())
        .collect();
    let mut counted = BTreeSet::new();
    for source in ["api/src/metrics.rs", "worker/src/metrics.rs"] {
        let text = text(source);
        let strings = text.split('"').skip(1).step_by(2);
        counted.extend(strings.filter(|string| string.starts_with("emailer_")).map(ToOwned::to_owned));
    }
    assert_eq!(written, counted);
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let readme = text("README.md");
    let (_, rest) = readme.split_once("\n### Answers\n").unwrap();
    let (table, _) = rest.split_once("\n\nErrors").unwrap();
    let written: BTreeSet<&str> = table
        .lines()
        .filter(|row| row.starts_with("| ") && !row.starts_with("| status"))
        .flat_map(|row| code(row.split(" | ").nth(1).unwrap_or_default()))
        .collect();
    let source = text("api/src/problem.rs");
    let (_, rest) = source.split_once("codes! {").unwrap();
    let (list, _) = rest.split_once("\n}").unwrap();
    let known: BTreeSet<&str> = list.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(written, known);
}

#[test]
fn every_route_is_in_the_table() {
    let readme = text("README.md");
    let (_, rest) = readme.split_once("\n## HTTP API\n").unwrap();
    let (table, _) = rest.split_once("\n### ").unwrap();
    let written: BTreeSet<&str> = table
        .lines()
        .filter(|row| row.starts_with("| `"))
        .flat_map(|row| code(row.split(" | ").next().unwrap_or_default()))
        .flat_map(|span| span.split(' '))
        .filter(|word| word.starts_with('/'))
        .map(|path| path.split('?').next().unwrap_or_default())
        .collect();
    let source = text("api/src/routes.rs");
    let paths = source.split("resource(app, \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert_eq!(written, paths.collect());
}

#[test]
fn the_log_lines_named_are_those_of_the_code() {
    let sources = text("worker/src/relay.rs") + &text("worker/src/session.rs");
    for line in
        ["the relay cannot be used", "the relay asks to slow down", "not sent yet: will be tried again"]
    {
        assert!(text("README.md").contains(line), "{line} is not named");
        assert!(sources.contains(line), "{line} is not logged");
    }
}
