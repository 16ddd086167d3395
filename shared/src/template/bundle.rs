//! The sources that a render uses, found without rendering.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RenderError;

/// Names a [`Bundle`] by its content: SHA-256 in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BundleHash(pub String);

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All sources that a render uses: the template, its parents and includes, its `.txt` and its `.subject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The template's id, `zh/notification_email.html`.
    pub template: String,
    /// The sources by id.
    pub sources: BTreeMap<String, String>,
}

impl Bundle {
    /// Collects what a template of a folder uses.
    pub(super) fn collect(template: &str, folder: &BTreeMap<String, String>) -> Result<Self, RenderError> {
        let mut sources = BTreeMap::new();
        let mut open = vec![template.to_owned()];
        open.extend(
            [companion(template, "txt"), companion(template, "subject")]
                .into_iter()
                .filter(|id| folder.contains_key(id)),
        );
        while let Some(id) = open.pop() {
            let Some(source) = folder.get(&id).filter(|_| !sources.contains_key(&id)) else {
                continue;
            };
            for reference in references(&id, source)? {
                if !folder.contains_key(&reference.id) && !reference.may_miss {
                    let message = format!("uses {:?}, which is not in the folder", reference.id);
                    return Err(RenderError::in_source(&id, reference.line, message));
                }
                open.push(reference.id);
            }
            sources.insert(id, source.clone());
        }
        Ok(Self { template: template.to_owned(), sources })
    }

    /// Its name.
    #[must_use]
    pub fn hash(&self) -> BundleHash {
        let mut hasher = Sha256::new();
        // Lengths go in front, so that no two bundles give the same bytes.
        for part in
            std::iter::once(&self.template).chain(self.sources.iter().flat_map(|(id, source)| [id, source]))
        {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        BundleHash(data_encoding::HEXLOWER.encode(&hasher.finalize()))
    }

    /// The id of the template's `.txt` or `.subject`, where it has one.
    pub(super) fn companion(&self, extension: &str) -> Option<String> {
        Some(companion(&self.template, extension)).filter(|id| self.sources.contains_key(id))
    }
}

fn companion(template: &str, extension: &str) -> String {
    format!("{}.{extension}", template.strip_suffix(".html").unwrap_or(template))
}

#[derive(Debug, PartialEq, Eq)]
struct Reference {
    id: String,
    line: usize,
    may_miss: bool,
}

#[expect(
    clippy::unwrap_used,
    reason = "the patterns are constant, and every test of this module compiles them"
)]
static TAG: LazyLock<Regex> = LazyLock::new(|| {
    // What is in a comment or raw is no tag.
    let raw = r"\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}";
    let tag = r"\{%[-+]?\s*(extends|include|import|from)\b(.*?)[-+]?%\}";
    Regex::new(&format!(r"(?s)\{{#.*?#\}}|{raw}|{tag}")).unwrap()
});

#[expect(clippy::unwrap_used, reason = "as above")]
static LITERAL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^\s*\[?\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*,?\s*\]?"#).unwrap());

/// The other name of a choice: `"a.html" if x else "b.html"`.
#[expect(clippy::unwrap_used, reason = "as above")]
static CHOICE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?s)^\s*if\b.*?\belse\b").unwrap());

/// What a source names. A name that is computed is refused: what a render uses must be known at acceptance.
fn references(id: &str, source: &str) -> Result<Vec<Reference>, RenderError> {
    let mut found = Vec::new();
    for tag in TAG.captures_iter(source) {
        let (Some(whole), Some(word), Some(mut rest)) =
            (tag.get(0), tag.get(1), tag.get(2).map(|m| m.as_str()))
        else {
            continue;
        };
        let line = source[..whole.start()].matches('\n').count() + 1;
        let before = found.len();
        let may_miss = rest.contains("ignore missing") || rest.trim_start().starts_with('[');
        while let Some(name) = LITERAL.captures(rest) {
            if let Some(text) = name.get(1).or_else(|| name.get(2)) {
                found.push(Reference { id: text.as_str().to_owned(), line, may_miss });
            }
            rest = &rest[name.get(0).map_or(rest.len(), |m| m.end())..];
            if let Some(choice) = CHOICE.find(rest) {
                rest = &rest[choice.end()..];
            }
        }
        if found.len() == before {
            let message = format!(
                "{} needs a literal name: what a mail uses is fixed when it is accepted",
                word.as_str()
            );
            return Err(RenderError::in_source(id, line, message));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(id, source)| ((*id).to_owned(), (*source).to_owned())).collect()
    }

    #[test]
    fn bundle_is_what_a_render_uses_and_no_more() {
        let folder = folder(&[
            (
                "en/a.html",
                "{% extends '_base.html' %}{% include \"_foot.html\" %}{# {% include 'no.html' %} #}",
            ),
            ("en/a.txt", "{%- from '_macros.txt' import x -%}"),
            (
                "_base.html",
                "{% include ['maybe.html', '_head.html'] %}{% raw %}{% include 'no.html' %}{% endraw %}",
            ),
            ("_head.html", "{% include '_day.html' if day else '_night.html' %}"),
            ("_day.html", "d"),
            ("_night.html", "n"),
            ("_foot.html", "{% include 'gone.html' ignore missing %}"),
            ("_macros.txt", "m"),
            ("en/b.html", "other"),
        ]);
        let bundle = Bundle::collect("en/a.html", &folder).unwrap();
        let ids: Vec<&str> = bundle.sources.keys().map(String::as_str).collect();
        assert_eq!(
            ids,
            [
                "_base.html",
                "_day.html",
                "_foot.html",
                "_head.html",
                "_macros.txt",
                "_night.html",
                "en/a.html",
                "en/a.txt"
            ]
        );
    }

    #[test]
    fn missing_or_computed_name_is_refused_with_its_line() {
        for (source, line) in [
            ("\n\n{% include 'gone.html' %}", 3),
            ("\n{% include name %}", 2),
            ("{% extends x + '.html' %}", 1),
        ] {
            let error = Bundle::collect("a.html", &folder(&[("a.html", source)])).unwrap_err();
            assert_eq!((error.template.as_str(), error.line), ("a.html", Some(line)), "{error}");
        }
    }

    #[test]
    fn hash_tells_bundles_apart() {
        let one = Bundle::collect("a.html", &folder(&[("a.html", "x")])).unwrap();
        let two = Bundle::collect("a.html", &folder(&[("a.html", "y")])).unwrap();
        assert_eq!(one.hash(), one.clone().hash());
        assert_ne!(one.hash(), two.hash());
        assert_eq!(one.hash().0.len(), 64);
    }
}
