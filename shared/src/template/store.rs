//! The templates that requests can name.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::time::Duration;

use notify::Watcher;

use super::{Bundle, Compiled, folder};

/// How long a folder must be quiet before it is read again: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(150);

/// The templates that requests can name. Reading them again replaces all at once, or, when one of them is broken, none.
#[derive(Debug)]
pub struct TemplateStore {
    dir: Option<PathBuf>,
    default_locale: String,
    /// By id in lower case.
    templates: RwLock<Arc<HashMap<String, Arc<Compiled>>>>,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateFolderError(pub String);

impl TemplateStore {
    /// Reads and compiles all templates of a folder; `None`: the ones built in.
    ///
    /// # Errors
    /// When the folder cannot be read or a template does not compile; names the file and the line.
    pub fn open(dir: Option<&Path>, default_locale: &str) -> Result<Self, TemplateFolderError> {
        let store = Self {
            dir: dir.map(Path::to_owned),
            default_locale: default_locale.to_owned(),
            templates: RwLock::default(),
        };
        store.reload()?;
        Ok(store)
    }

    /// Reads the folder again.
    ///
    /// # Errors
    /// As [`TemplateStore::open`]; the templates stay as they were.
    pub fn reload(&self) -> Result<(), TemplateFolderError> {
        let sources = match &self.dir {
            Some(dir) => folder::read(dir).map_err(TemplateFolderError)?,
            None => built_in(),
        };
        let mut templates = HashMap::new();
        for id in sources.keys().filter(|id| is_template(id)) {
            let bundle =
                Bundle::collect(id, &sources).map_err(|error| TemplateFolderError(error.to_string()))?;
            let compiled = Compiled::try_new(Arc::new(bundle))
                .map_err(|error| TemplateFolderError(error.to_string()))?;
            templates.insert(id.to_lowercase(), Arc::new(compiled));
        }
        *self.templates.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(templates);
        Ok(())
    }

    /// How many templates there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> Arc<HashMap<String, Arc<Compiled>>> {
        Arc::clone(&self.templates.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The template that an id means: `zh/notification_email.html`, or `notification_email` with a locale and the
    /// fallback zh-CN → zh → default (RFC 4647 §3.4). None: unknown; nothing outside the folder can be named.
    #[must_use]
    pub fn find(&self, id: &str, locale: Option<&str>) -> Option<Arc<Compiled>> {
        let templates = self.all();
        let id = id.to_lowercase();
        if is_template(&id) {
            return templates.get(&id).cloned();
        }
        let locales = locale.into_iter().flat_map(fallbacks).chain(fallbacks(&self.default_locale));
        locales.map(|locale| format!("{locale}/{id}.html")).find_map(|id| templates.get(&id).cloned())
    }

    /// Reads the folder again whenever it changes, until the guard is dropped. A broken edit is logged and changes
    /// nothing. `None`: the templates are built in.
    ///
    /// # Errors
    /// When the folder cannot be watched.
    pub fn watch(self: &Arc<Self>) -> Result<Option<Watching>, TemplateFolderError> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let failed = |error: notify::Error| {
            TemplateFolderError(format!("{} cannot be watched: {error}", dir.display()))
        };
        let (sender, changes) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // The receiver ends with the watcher, not before.
                sender.send(()).unwrap_or_default();
            }
        })
        .map_err(failed)?;
        watcher.watch(dir, notify::RecursiveMode::Recursive).map_err(failed)?;
        let store = Arc::clone(self);
        std::thread::spawn(move || {
            while changes.recv().is_ok() {
                while changes.recv_timeout(QUIET).is_ok() {}
                match store.reload() {
                    Ok(()) => tracing::info!(templates = store.count(), "templates reloaded"),
                    Err(error) => {
                        tracing::error!(%error, "templates not reloaded; the last good ones stay in use");
                    }
                }
            }
        });
        Ok(Some(Watching { _watcher: watcher }))
    }
}

/// Keeps a folder watched.
#[derive(Debug)]
pub struct Watching {
    _watcher: notify::RecommendedWatcher,
}

/// A file that a request can name; one that begins with `_` is a part of others.
fn is_template(id: &str) -> bool {
    super::is_html(id) && !id.rsplit('/').next().unwrap_or(id).starts_with('_')
}

/// zh-Hans-CN → zh-hans-cn, zh-hans, zh.
fn fallbacks(locale: &str) -> impl Iterator<Item = String> {
    let locale = locale.replace('_', "-").to_lowercase();
    std::iter::successors(Some(locale), |longer| {
        longer.rsplit_once('-').map(|(shorter, _)| shorter.to_owned())
    })
}

fn built_in() -> BTreeMap<String, String> {
    macro_rules! files {
        ($($id:literal),*) => {
            [$(($id, include_str!(concat!("../../templates/", $id)))),*]
        };
    }
    let files = files![
        "_layout.html",
        "en/notification_email.html",
        "en/notification_email.txt",
        "en/notification_email.subject",
        "zh/notification_email.html",
        "zh/notification_email.txt",
        "zh/notification_email.subject"
    ];
    files.into_iter().map(|(id, source)| (id.to_owned(), source.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Map, Value, json};

    use super::*;

    fn data(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (id, source) in files {
            let path = dir.path().join(id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        dir
    }

    #[test]
    fn shipped_templates_render_in_both_languages_with_and_without_extra() {
        let store = TemplateStore::open(None, "en").unwrap();
        for id in ["en/notification_email.html", "zh/notification_email.html"] {
            let compiled = store.find(id, None).unwrap();
            for extra in [Value::Null, json!("more"), json!({"订单": "42"})] {
                let mut values = data(json!({"title": "标题 <1>", "message": "你好\n世界"}));
                if !extra.is_null() {
                    values.insert("extra".into(), extra.clone());
                }
                let rendered = compiled.render(None, &values, None).unwrap();
                assert!(
                    rendered.html.contains("标题 &lt;1&gt;") && rendered.html.contains("color-scheme"),
                    "{id}"
                );
                assert!(rendered.text.unwrap().contains("标题 <1>"));
                assert_eq!(rendered.html.contains("订单"), extra.is_object());
            }
            let error = compiled.render(None, &data(json!({"title": "t"})), None).unwrap_err();
            assert_eq!(error.undefined.as_deref(), Some("message"));
        }
    }

    #[test]
    fn locale_falls_back_to_its_language_and_then_to_the_default() {
        let dir = folder(&[
            ("zh/a.html", "zh"),
            ("en/a.html", "en"),
            ("zh-TW/a.html", "tw"),
            ("en/only.html", "x"),
        ]);
        let store = TemplateStore::open(Some(dir.path()), "en").unwrap();
        for (id, locale, found) in [
            ("a", Some("zh-CN"), Some("zh/a.html")),
            ("a", Some("zh_TW"), Some("zh-TW/a.html")),
            ("a", Some("zh-Hans-CN"), Some("zh/a.html")),
            ("a", Some("fr"), Some("en/a.html")),
            ("a", None, Some("en/a.html")),
            ("only", Some("zh"), Some("en/only.html")),
            ("zh/a.html", Some("en"), Some("zh/a.html")),
            ("b", None, None),
        ] {
            let template = store.find(id, locale).map(|compiled| compiled.bundle().template.clone());
            assert_eq!(template.as_deref(), found, "{id} {locale:?}");
        }
    }

    #[test]
    fn nothing_outside_of_the_folder_can_be_named() {
        let dir = folder(&[("in/en/a.html", "x"), ("in/en/_part.html", "x"), ("out.html", "secret")]);
        let inside = dir.path().join("in");
        let store = TemplateStore::open(Some(&inside), "en").unwrap();
        for id in [
            "../out.html",
            "en/../../out.html",
            "/etc/passwd",
            "/out.html",
            "..\\out.html",
            "en/_part.html",
            "out",
            "../out",
            "en/a.html\0",
        ] {
            assert!(store.find(id, None).is_none(), "{id:?}");
        }
        std::os::unix::fs::symlink(dir.path().join("out.html"), inside.join("en/link.html")).unwrap();
        let error = TemplateStore::open(Some(&inside), "en").unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
    }

    #[test]
    fn broken_template_is_named_with_its_line() {
        let dir = folder(&[("en/a.html", "x\n{% if %}")]);
        let error = TemplateStore::open(Some(dir.path()), "en").unwrap_err();
        assert!(error.to_string().starts_with("en/a.html line 2"), "{error}");
    }

    #[test]
    fn edit_is_taken_over_and_a_broken_one_is_not() {
        let dir = folder(&[("en/a.html", "one")]);
        let store = Arc::new(TemplateStore::open(Some(dir.path()), "en").unwrap());
        let kept = store.find("a", None).unwrap();
        let watching = store.watch().unwrap();
        let shows = |text: &str| {
            let rendered = store.find("a", None).unwrap().render(Some("s"), &Map::new(), None);
            rendered.is_ok_and(|rendered| rendered.html == text)
        };
        let wait_for = |done: &dyn Fn() -> bool| {
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while !done() {
                assert!(std::time::Instant::now() < end, "the edit is not noticed");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        fs::write(dir.path().join("en/a.html"), "two").unwrap();
        wait_for(&|| shows("two"));
        // The broken edit comes with a good one elsewhere, which must not be taken over alone.
        fs::write(dir.path().join("en/b.html"), "{% if %}").unwrap();
        assert!(store.reload().is_err());
        assert!(shows("two"));
        fs::remove_file(dir.path().join("en/b.html")).unwrap();
        fs::write(dir.path().join("en/a.html"), "three").unwrap();
        wait_for(&|| shows("three"));
        assert_eq!(
            kept.render(Some("s"), &Map::new(), None).unwrap().html,
            "one",
            "an accepted mail changed"
        );
        drop(watching);
    }
}
