//! Reading a folder of templates: nothing outside of it, nothing hidden, nothing without end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How deep folders may lie in each other.
const DEPTH: usize = 8;

/// The largest source, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;

/// How many sources a folder may hold.
const FILES_LIMIT: usize = 10_000;

/// All sources of a folder, by their path below it with `/`.
pub(super) fn read(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let canonical = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let mut sources = BTreeMap::new();
    walk(&canonical, &canonical, "", 0, &mut sources)?;
    Ok(sources)
}

fn walk(
    root: &Path,
    folder: &Path,
    prefix: &str,
    depth: usize,
    into: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    if depth > DEPTH {
        return Err(format!("{}: more than {DEPTH} folders deep", folder.display()));
    }
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        // A link may lead elsewhere in the folder (so Kubernetes mounts a ConfigMap), never out of it.
        let path =
            entry.path().canonicalize().map_err(|error| format!("{}: {error}", entry.path().display()))?;
        if !path.starts_with(root) {
            return Err(format!("{}: leads out of the folder", entry.path().display()));
        }
        let id = format!("{prefix}{name}");
        let about = fs::metadata(&path).map_err(|error| format!("{id}: {error}"))?;
        if about.is_dir() {
            walk(root, &path, &format!("{id}/"), depth + 1, into)?;
        } else if is_source(&name) {
            if about.len() > FILE_LIMIT {
                return Err(format!("{id}: larger than 1 MiB"));
            }
            if into.len() == FILES_LIMIT {
                return Err(format!("more than {FILES_LIMIT} templates"));
            }
            into.insert(id.clone(), fs::read_to_string(&path).map_err(|error| format!("{id}: {error}"))?);
        }
    }
    Ok(())
}

fn is_source(name: &str) -> bool {
    [".html", ".txt", ".subject"].iter().any(|extension| name.ends_with(extension))
}
