//! Templates: a folder by language, compiled at start, reloaded when it changes.
//!
//! What a render uses is fixed at acceptance as a [`Bundle`]; a worker renders from that and reads no folder. Rendering
//! is strict: an undefined variable is an error, but an optional one may be tested (`{% if extra %}`). It is bounded in
//! work, depth and size.

mod bundle;
mod compiled;
mod folder;
mod store;

pub use bundle::{Bundle, BundleHash};
pub use compiled::{Compiled, RenderError, Rendered};
pub use store::{TemplateFolderError, TemplateStore, Watching};

/// Whether a source is HTML, by its name.
fn is_html(id: &str) -> bool {
    std::path::Path::new(id).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html"))
}
