//! The files of a folder of manifests, byte for byte.

use super::ManifestsError;
use crate::manifest::Notation;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How deep folders may nest; deeper is a symlink that leads back.
const DEEPEST: usize = 32;

/// Every manifest below a folder, sorted by path.
pub(super) type Files = Vec<File>;

/// One file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) notation: Notation,
    pub(super) bytes: Vec<u8>,
}

/// Reads every `*.yaml`, `*.yml` and `*.json` in `dir` and below.
pub(super) fn read(dir: &Path) -> Result<Files, ManifestsError> {
    let mut files = Vec::new();
    walk(dir, 0, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(dir: &Path, depth: usize, files: &mut Files) -> Result<(), ManifestsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ManifestsError::Read { path, source }
    };
    if depth > DEEPEST {
        return Err(failed(dir)(io::Error::other("the folders nest too deep: a symlink leads back")));
    }
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Symlinks are followed: a mounted ConfigMap consists of them.
        let is_dir = fs::metadata(&path).map_err(failed(&path))?.is_dir();
        if is_dir {
            walk(&path, depth + 1, files)?;
        } else if let Some(notation) = notation(&path) {
            let bytes = fs::read(&path).map_err(failed(&path))?;
            files.push(File { path, notation, bytes });
        }
    }
    Ok(())
}

fn notation(path: &Path) -> Option<Notation> {
    path.extension()?.to_str().and_then(Notation::of_extension)
}
