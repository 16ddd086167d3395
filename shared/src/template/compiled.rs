//! A bundle, ready to render.

use std::io;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Bundle, BundleHash};

/// The name of a request's own subject, in errors.
const SUBJECT: &str = "subject";

/// How much work a render may be, in instructions of the template engine: some tens of milliseconds.
const FUEL: u64 = 500_000;

/// How deep templates may call each other.
const DEPTH: usize = 50;

/// How large a rendered part may be, in bytes.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;

/// The longest subject, in characters.
const SUBJECT_LIMIT: usize = 998;

/// A bundle, ready to render. Rendering takes CPU only, bounded in work and size.
#[derive(Debug)]
pub struct Compiled {
    bundle: Arc<Bundle>,
    hash: BundleHash,
    environment: Environment<'static>,
    text: Option<String>,
    subject: Option<String>,
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

impl RenderError {
    pub(super) fn in_source(template: &str, line: usize, message: String) -> Self {
        Self { template: template.to_owned(), line: Some(line), undefined: None, message }
    }

    fn subject(template: &str, message: &str) -> Self {
        Self { template: template.to_owned(), line: None, undefined: None, message: message.to_owned() }
    }

    fn new(template: &str, error: &minijinja::Error) -> Self {
        // The innermost error is the one with the place where it happened.
        let mut inner: &minijinja::Error = error;
        while let Some(source) =
            std::error::Error::source(inner).and_then(|e| e.downcast_ref::<minijinja::Error>())
        {
            inner = source;
        }
        let undefined = (inner.kind() == ErrorKind::UndefinedError).then(|| variable(inner)).flatten();
        let too_large = std::error::Error::source(inner).is_some_and(|e| e.to_string() == TOO_LARGE);
        let message = match (&undefined, inner.kind()) {
            (Some(name), _) => format!("{name} is not defined"),
            (None, ErrorKind::OutOfFuel) => "takes too much work to render".to_owned(),
            _ if too_large => TOO_LARGE.to_owned(),
            _ => inner.detail().map_or_else(|| inner.kind().to_string(), ToOwned::to_owned),
        };
        Self { template: inner.name().unwrap_or(template).to_owned(), line: inner.line(), undefined, message }
    }
}

/// The variable that was undefined: the engine quotes it.
fn variable(error: &minijinja::Error) -> Option<String> {
    let (name, _) = error.detail()?.strip_prefix('`')?.split_once('`')?;
    Some(name.to_owned())
}

impl Compiled {
    /// Compiles a bundle.
    ///
    /// # Errors
    /// [`RenderError`] when a source does not compile.
    pub fn try_new(bundle: Arc<Bundle>) -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|name| {
            if super::is_html(name) { AutoEscape::Html } else { AutoEscape::None }
        });
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        environment.set_debug(true);
        for (id, source) in &bundle.sources {
            environment
                .add_template_owned(id.clone(), source.clone())
                .map_err(|error| RenderError::new(id, &error))?;
        }
        let (text, subject) = (bundle.companion("txt"), bundle.companion("subject"));
        Ok(Self { hash: bundle.hash(), bundle, environment, text, subject })
    }

    /// The sources.
    #[must_use]
    pub const fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The sources' name.
    #[must_use]
    pub const fn hash(&self) -> &BundleHash {
        &self.hash
    }

    /// Whether the template has a subject of its own.
    #[must_use]
    pub const fn has_subject(&self) -> bool {
        self.subject.is_some()
    }

    /// Renders all parts. `subject` is a request's own subject (template syntax allowed); it takes the place of the
    /// template's. `data` and `overlay` (a recipient's own) are merged at the top level, the overlay winning.
    ///
    /// # Errors
    /// [`RenderError`]: an undefined variable, a failing filter, too much work or output, a subject that is empty, too
    /// long or has a line break.
    pub fn render(
        &self,
        subject: Option<&str>,
        data: &Map<String, Value>,
        overlay: Option<&Map<String, Value>>,
    ) -> Result<Rendered, RenderError> {
        let values = match overlay {
            None => minijinja::value::Serde(data).into(),
            Some(overlay) => minijinja::value::Serde(Overlaid { data, overlay }).into(),
        };
        let subject = match (subject, &self.subject) {
            (Some(source), _) => {
                let template = self.environment.template_from_named_str(SUBJECT, source);
                let template = template.map_err(|error| RenderError::new(SUBJECT, &error))?;
                checked(SUBJECT, &bounded(&template, &values)?)?
            }
            (None, Some(id)) => checked(id, &self.part(id, &values)?)?,
            (None, None) => {
                return Err(RenderError::subject(SUBJECT, "neither the request nor the template has one"));
            }
        };
        let html = self.part(&self.bundle.template, &values)?;
        let text = self.text.as_ref().map(|id| self.part(id, &values)).transpose()?;
        Ok(Rendered { subject, html, text })
    }

    fn part(&self, id: &str, values: &minijinja::Value) -> Result<String, RenderError> {
        let template = self.environment.get_template(id).map_err(|error| RenderError::new(id, &error))?;
        bounded(&template, values)
    }
}

/// A batch's data with a recipient's own laid over it, in the order in which they were given.
struct Overlaid<'a> {
    data: &'a Map<String, Value>,
    overlay: &'a Map<String, Value>,
}

impl Serialize for Overlaid<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_batch = self.data.iter().map(|(key, value)| (key, self.overlay.get(key).unwrap_or(value)));
        serializer
            .collect_map(of_batch.chain(self.overlay.iter().filter(|(key, _)| !self.data.contains_key(*key))))
    }
}

const TOO_LARGE: &str = "gives more than 4 MiB";

/// Takes output up to [`SIZE_LIMIT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > SIZE_LIMIT {
            return Err(io::Error::other(TOO_LARGE));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bounded(template: &minijinja::Template<'_, '_>, values: &minijinja::Value) -> Result<String, RenderError> {
    let mut output = Bounded(Vec::with_capacity(template.source().len() + 256));
    template
        .render_captured_to(values.clone(), &mut output)
        .map_err(|error| RenderError::new(template.name(), &error))?;
    // The engine writes whole strings, so that this cannot fail.
    Ok(String::from_utf8(output.0).unwrap_or_default())
}

/// A rendered subject, without the white space around it: a file ends with a line feed.
fn checked(template: &str, subject: &str) -> Result<String, RenderError> {
    let subject = subject.trim();
    if subject.is_empty() {
        return Err(RenderError::subject(template, "the subject is empty"));
    }
    if subject.chars().count() > SUBJECT_LIMIT {
        return Err(RenderError::subject(template, "the subject has more than 998 characters"));
    }
    if subject.contains(['\r', '\n', '\0']) {
        return Err(RenderError::subject(template, "the subject has a line break or a NUL"));
    }
    Ok(subject.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(files: &[(&str, &str)]) -> Result<Compiled, RenderError> {
        let folder = files.iter().map(|(id, source)| ((*id).to_owned(), (*source).to_owned())).collect();
        Compiled::try_new(Arc::new(Bundle::collect(files[0].0, &folder)?))
    }

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn html_is_escaped_and_subject_and_text_are_not() {
        let compiled =
            compile(&[("a.html", "<p>{{ x }}</p>"), ("a.txt", "{{ x }}"), ("a.subject", "S: {{ x }}\n")])
                .unwrap();
        let rendered = compiled.render(None, &map(json!({"x": "<b>&"})), None).unwrap();
        assert_eq!(rendered.html, "<p>&lt;b&gt;&amp;</p>");
        assert_eq!((rendered.text.as_deref(), rendered.subject.as_str()), (Some("<b>&"), "S: <b>&"));
        let rendered = compiled.render(Some("{{ x }} & co"), &map(json!({"x": "<"})), None).unwrap();
        assert_eq!(rendered.subject, "< & co");
    }

    #[test]
    fn undefined_variable_is_named_with_its_line_and_an_optional_one_may_be_tested() {
        let compiled = compile(&[
            ("a.html", "{% extends 'b.html' %}\n{% block c %}\n{{ title }}{% if extra %}{{ extra }}{% endif %}{% endblock %}"),
            ("b.html", "x\n{% block c %}{% endblock %}"),
        ])
        .unwrap();
        let error = compiled.render(Some("s"), &Map::new(), None).unwrap_err();
        assert_eq!((error.undefined.as_deref(), error.line), (Some("title"), Some(3)), "{error}");
        assert_eq!(error.template, "a.html");
        assert!(compiled.render(Some("s"), &map(json!({"title": "t"})), None).is_ok());
        let error =
            compiled.render(Some("{{ nobody.name }}"), &map(json!({"title": "t"})), None).unwrap_err();
        assert_eq!(
            (error.template.as_str(), error.undefined.as_deref()),
            ("subject", Some("nobody")),
            "{error}"
        );
    }

    #[test]
    fn recipient_data_lies_over_the_batch_data_at_the_top_level() {
        let compiled = compile(&[("a.html", "{{ a }} {{ b.c }}")]).unwrap();
        let (data, overlay) = (map(json!({"a": 1, "b": {"c": 1}})), map(json!({"b": {"c": 2}})));
        assert_eq!(compiled.render(Some("s"), &data, Some(&overlay)).unwrap().html, "1 2");
    }

    #[test]
    fn render_is_bounded_in_work_and_size() {
        let compiled = compile(&[(
            "a.html",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        )]);
        let error = compiled.unwrap().render(Some("s"), &Map::new(), None).unwrap_err();
        assert!(error.message.contains("too much work"), "{error}");
        let big = map(json!({"x": "x".repeat(100_000)}));
        let compiled = compile(&[("a.html", "{% for a in range(100) %}{{ x }}{% endfor %}")]).unwrap();
        let error = compiled.render(Some("s"), &big, None).unwrap_err();
        assert_eq!(error.message, TOO_LARGE);
        assert!(
            compile(&[("a.html", "{% include 'a.html' %}")])
                .unwrap()
                .render(Some("s"), &Map::new(), None)
                .is_err()
        );
    }

    #[test]
    fn rendered_subject_is_checked_again() {
        let compiled = compile(&[("a.html", "x")]).unwrap();
        for (x, wrong) in [("a\r\nBcc: b@c.d", "line break"), ("", "empty"), (&"x".repeat(999), "998")] {
            let error = compiled.render(Some("{{ x }}"), &map(json!({"x": x})), None).unwrap_err();
            assert!(error.message.contains(wrong), "{error}");
        }
        assert!(compiled.render(None, &Map::new(), None).is_err());
    }

    #[test]
    fn source_that_does_not_compile_is_refused_with_its_line() {
        let error = compile(&[("a.html", "x\n{% if %}")]).unwrap_err();
        assert_eq!((error.template.as_str(), error.line), ("a.html", Some(2)));
    }
}
