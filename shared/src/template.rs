//! Templates: a folder by language, compiled at start, reloaded when it changes.
//!
//! What a render used is fixed at acceptance as a [`Bundle`]; a worker renders from that and reads no folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    /// Its name.
    #[must_use]
    pub fn hash(&self) -> BundleHash {
        unimplemented!()
    }
}

/// The templates that requests can name.
#[derive(Debug)]
pub struct TemplateStore {}

impl TemplateStore {
    /// Reads and compiles all templates of a folder; `None`: the ones built in.
    ///
    /// # Errors
    /// When the folder cannot be read or a template does not compile; names the file and the line.
    pub fn open(_dir: Option<&Path>, _default_locale: &str) -> Result<Self, TemplateFolderError> {
        unimplemented!()
    }

    /// The template that an id means: `zh/notification_email.html`, or `notification_email` with a locale and the
    /// fallback zh-CN → zh → default. None: unknown, absolute, or climbing out of the folder.
    #[must_use]
    pub fn find(&self, _id: &str, _locale: Option<&str>) -> Option<Arc<Compiled>> {
        unimplemented!()
    }
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateFolderError(pub String);

/// A bundle, ready to render. Cheap to share; rendering takes CPU only, bounded in time and size.
#[derive(Debug)]
pub struct Compiled {}

impl Compiled {
    /// Compiles a bundle.
    ///
    /// # Errors
    /// [`RenderError`] when a source does not compile.
    pub fn try_new(_bundle: Arc<Bundle>) -> Result<Self, RenderError> {
        unimplemented!()
    }

    /// The sources, and their hash.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        unimplemented!()
    }

    /// The sources' name.
    #[must_use]
    pub fn hash(&self) -> &BundleHash {
        unimplemented!()
    }

    /// Whether the template has a subject of its own.
    #[must_use]
    pub fn has_subject(&self) -> bool {
        unimplemented!()
    }

    /// Renders all parts. `subject` is a request's own subject (template syntax allowed); it takes the place of the
    /// template's. `data` and `overlay` (a recipient's own) are merged at the top level, the overlay winning.
    ///
    /// # Errors
    /// [`RenderError`]: an undefined variable, a failing filter, too much work or output, a subject that is empty, too
    /// long or has a line break.
    pub fn render(
        &self,
        _subject: Option<&str>,
        _data: &Map<String, Value>,
        _overlay: Option<&Map<String, Value>>,
    ) -> Result<Rendered, RenderError> {
        unimplemented!()
    }
}

/// What a template gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The subject, checked: 1–998 characters without CR, LF or NUL.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The plain part, where the template has a `.txt`.
    pub text: Option<String>,
}

/// Why a template did not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{template}{}: {message}", line.map(|l| format!(" line {l}")).unwrap_or_default())]
pub struct RenderError {
    /// The source's id; `subject` for a request's own subject.
    pub template: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The variable, where it is undefined.
    pub undefined: Option<String>,
    /// What is wrong, for a person.
    pub message: String,
}
